import json


def test_a_list_for_what_all_models_share_is_a_gradient(alliage):
    line = "merge --method task_arithmetic --base base sentiment topics --dry-run --json"
    done = alliage(f"{line} --set scale=[0,1] --set weight=1,1e-1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["arguments"] == {"weight": [1, 0.1]}
    done = alliage(f"{line} --set scale=[0,x]")
    assert done.returncode == 2
    assert "parameters.scale[1]: must be a finite number, got 'x'." in done.stderr


def test_rules_by_the_tensors_name(alliage):
    line = "merge --method task_arithmetic --base base sentiment topics --dry-run --json"
    rules = "[{filter: query, value: 1}, {value: [0, 1]}]"
    done = alliage(f"{line} --set 'weight={rules}'")
    assert done.returncode == 0, done.stderr
    done = alliage(f"{line} --set 'weight={rules.replace('query, v', 'query, w')}'")
    assert done.returncode == 2
    assert "parameters.weight[0]: unknown key 'walue'. Did you mean 'value'?" in done.stderr


def test_a_value_that_is_no_yaml(alliage):
    done = alliage("merge --method average sentiment topics -o out --set 'weight={a: 1, a: 2}'")
    assert done.returncode == 2
    assert "expected KEY=VALUE; VALUE is not valid YAML: the key 'a' is there twice" in done.stderr
