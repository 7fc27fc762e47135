"""What is read off the counts: shares, rows, words, pictures."""

import math

import numpy as np
import pandas as pd
import pytest

import alliage
from alliage.errors import UsageError
from alliage.geometry.interference.figures import PICTURES
from alliage.geometry.interference.result import COLUMNS, GROUPINGS, MEASURES
from alliage.geometry.interference.words import percent
from alliage.studies.results import TABLES


@pytest.fixture
def found(tuned):
    base, *models = tuned(3)
    return alliage.interference(base, models, top_k=0.25)


def test_counts_by_hand(write):
    import torch

    # Task vectors (3, −2, 1, ½) and (2, 1, −4, ½): of four entries, ½ keeps ⌊2⌋ + 1 = 3.
    zeros = {"layers.0.q_proj.weight": torch.zeros(2, 2)}
    first, second = ([3.0, -2, 1, 0.5], [2.0, 1, -4, 0.5])
    base = write("base", zeros)
    models = [
        write(name, {key: torch.tensor(values).reshape(2, 2) for key in zeros})
        for name, values in (("a", first), ("b", second))
    ]
    found = alliage.interference(base, models, top_k=0.5)
    at = found.conflicts().sel(top_k=0.5, group="model")
    # Both keep the first three: + +, − +, + −.
    assert float(at["conflict"]) == pytest.approx(2 / 3)
    assert float(at["conflict_of_all"]) == 0.5
    assert float(at["random"]) == 0.5
    pair = found.pairs().sel(top_k=0.5, group="model", task="a", other="b")
    assert float(pair["overlap"]) == 1
    # Chance: 9/4 of 4 parameters in both, of 3 + 3 − 9/4 in either.
    assert float(pair["random_overlap"]) == pytest.approx(2.25 / 3.75)
    assert found.influence().sel(top_k=0.5, group="model").values.tolist() == [0.25, 0, 0.75]
    sizes = found.magnitudes()["magnitude"]
    # Means (2½, −½, −1½) and ½; elected (2½, −2, −4).
    assert float(sizes.sel(step="mean", influence="for several models")) == 1.5
    assert float(sizes.sel(step="mean", influence="redundant")) == 0.5
    assert math.isnan(float(sizes.sel(step="mean", influence="for one model")))
    several = sizes.sel(step="ties", influence="for several models")
    assert float(several) == pytest.approx((2.5 + 2 + 4) / 3)
    assert found.data["threshold"].sel(top_k=0.5).values.tolist() == [1.0, 1.0]


def test_groups_add_up_to_the_whole(found):
    conflicts = found.data["conflicting"].sum("module").values
    for by in GROUPINGS:
        grouped = found.conflicts(by)
        counts = found._grouped(by)
        total = (grouped["conflict_of_all"] * counts["parameters"]).sum("group").values
        assert total == pytest.approx(conflicts)
    layers = found.conflicts("layer")["group"].values.tolist()
    assert layers == ["outside the layers", "encoder.layer.0", "encoder.layer.1"]
    assert found.conflicts("kind")["group"].values.tolist() == ["embedding", "query", "mlp"]
    assert found.influence("kind").sum("keeping").values == pytest.approx(1)


def test_axes_are_named(found):
    assert found.conflicts().sizes == {"top_k": 11, "group": 1}
    assert found.pairs("module")["overlap"].dims == ("top_k", "group", "task", "other")
    assert found.magnitudes("agreement")["magnitude"].dims == ("step", "agreement")
    assert found.magnitudes("keeping")["magnitude"].dims == ("step", "keeping")
    assert list(found.by_number().dims) == ["number"]


def test_rows_fit_the_results_table(found):
    rows = list(found.to_rows())
    assert set(COLUMNS) == set(TABLES["interference"])
    assert all(row.keys() == set(COLUMNS) for row in rows)
    assert {row["measure"] for row in rows} == set(MEASURES)
    assert not any(math.isnan(row["value"]) for row in rows)
    frame = found.to_pandas()
    assert frame.equals(pd.DataFrame(rows))
    keys = [name for name in COLUMNS if name != "value"]
    assert not frame.duplicated(keys).any()
    pair = frame.query(
        "measure == 'overlap' and by == 'model' and first == 'model0' and second == 'model2' "
        "and top_k == 0.25"
    )
    expected = found.pairs().sel(top_k=0.25, group="model", task="model0", other="model2")
    assert pair["value"].tolist() == [float(expected["overlap"])]
    two = frame.query("measure == 'conflict' and models == 2 and first == '' and by == 'model'")
    assert two["value"].tolist() == [float(found.by_number()["conflict"].sel(number=2))]


def test_words_say_what_the_numbers_say(found):
    text = " ".join(found.findings())
    at = found.conflicts().sel(top_k=0.25, group="model")
    assert (
        f"{percent(float(at['conflict']))} of the parameters that two or more models keep" in text
    )
    assert f"{percent(float(found.by_number()['conflict_of_all'].sel(number=3)))} with 3" in text
    none = float(found.influence().sel(top_k=0.25, group="model", keeping=0))
    assert f"{percent(none)} of the parameters are redundant" in text
    assert "(top 25%)" in text


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.2, "20%"), (0.001, "0.1%"), (0.00012, "0.012%"), (1e-9, "0.0000001%"), (0.4567, "45.7%"),
     (1.0, "100%"), (0.15000000000000002, "15%"), (0.0, "0%")],
)  # fmt: skip
def test_shares_keep_three_digits(share, said):
    assert percent(share) == said


def test_a_small_share_is_told_everywhere(tuned):
    base, *models = tuned(3)
    found = alliage.interference(base, models, top_k=0.004)
    assert "top 0.4%>" in repr(found)
    assert "(top 0.4%)" in found.findings()[0]
    assert sum("top 0.4%" in table.title for table in found.tables()) == 4
    texts = [text for name, picture in found.pictures() if name in ("number", "kinds", "pairs")
             for text in [picture.figure().axes[0].get_title(loc="left")]]  # fmt: skip
    assert len(texts) == 3
    assert all("top 0.4%" in text for text in texts)


def weights(write, name, kinds):
    import torch

    tensors = {f"layers.0.{kind}.weight": torch.tensor([row]) for kind, row in kinds.items()}
    return write(name, tensors)


def test_no_extremes_where_all_are_equal(write):
    base = weights(write, "base", {"q_proj": [0.0, 0.0], "v_proj": [0.0, 0.0]})
    models = [
        weights(write, str(i), {"q_proj": [1.0, 2.0], "v_proj": [1.0, 2.0]}) for i in range(3)
    ]
    text = " ".join(alliage.interference(base, models, top_k=1.0).findings())
    assert "Signs conflict in 0%" in text
    assert "fewest" not in text


def test_extremes_say_what_they_rest_on(write):
    base = weights(write, "base", {"q_proj": [0.0] * 4, "v_proj": [0.0] * 2})
    one = weights(write, "one", {"q_proj": [1.0, 1, 1, 0], "v_proj": [1.0, 1]})
    other = weights(write, "other", {"q_proj": [1.0, 1, -1, 1], "v_proj": [-1.0, 1]})
    assert (
        "Most conflicts by kind of module: value (50% of 2 shared); fewest: query (33.3% of 3 "
        "shared)."
    ) in alliage.interference(base, [one, other], top_k=1.0).findings()


def test_each_pair_stands_once(found):
    pairs = found.pairs()
    for shares in pairs.values():
        itself = [shares.sel(task=name, other=name) for name in found.names]
        assert all(values.isnull().all() for values in itself)
    frame = found.picture("pairs").to_pandas()
    assert len(frame) == 3 * found.data.sizes["top_k"]
    assert set(zip(frame["task"], frame["other"], strict=True)) == {
        ("model0", "model1"), ("model0", "model2"), ("model1", "model2"),
    }  # fmt: skip
    assert frame[["conflict", "overlap", "random_overlap"]].notna().all(axis=None)


def test_true_is_no_share(tuned):
    base, *models = tuned(2)
    with pytest.raises(UsageError, match="got True"):
        alliage.interference(base, models, top_k=True)


def test_it_shows_itself(found):
    assert repr(found).startswith("<Interference of 3 models, 348 parameters in 5 modules, top 25%")
    page = found._repr_html_()
    for table in found.tables():
        assert table.title in page
    assert page.count("<table") == len(found.tables())


def test_names_are_escaped(tuned):
    base, *models = tuned(2)
    named = dict(zip(["<b>one</b>", "two & three"], models, strict=True))
    page = alliage.interference(base, named)._repr_html_()
    assert "<b>one" not in page
    assert "&lt;b&gt;one" in page


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_their_numbers(found, name):
    picture = found.picture(name)
    figure = picture.figure()
    axes = figure.axes[0]
    if name in ("number", "top_k"):
        shares = (
            found.by_number() if name == "number" else found.conflicts().isel(group=0, drop=True)
        )
        lines = [line.get_ydata() for line in axes.lines]
        expected = [shares[key].values for key in ("conflict_of_all", "conflict", "random")]
        assert [list(line) for line in lines] == [list(values) for values in expected]
    elif name in ("influence", "agreement"):
        assert len(axes.patches) == 3 * (3 if name == "influence" else 5)
        tops = {round(patch.get_height(), 12) for patch in axes.patches}
        means = found.magnitudes(name)["magnitude"].sel(step="mean").values
        assert all(round(value, 12) in tops for value in means[:2] if not math.isnan(value))
    elif name == "kinds":
        assert len(axes.lines) == 2  # query and mlp
    else:
        assert len(axes.texts) == 6
    assert picture.svg() == picture.svg()
    assert "<svg" in picture._repr_svg_()
    assert len(picture.to_pandas()) > 0
    assert name in repr(picture)


def test_kinds_by_layer_are_counts_of_their_modules(found):
    frame = found.picture("kinds").to_pandas().set_index(["kind", "layer"])["conflict"]
    data = found.data.sel(top_k=0.25, module="encoder.layer.1.attention.self.query")
    assert frame["query", 1] == float(data["conflicting"] / data["shared"])


def test_encoder_and_decoder_have_lines_of_their_own(write):
    import torch

    generator = torch.Generator().manual_seed(0)
    names = [f"{stack}.block.{layer}.layer.0.SelfAttention.q.weight"
             for stack in ("encoder", "decoder") for layer in range(2)]  # fmt: skip
    base = write("base", {name: torch.zeros(6, 6) for name in names})
    models = [
        write(name, {key: torch.randn(6, 6, generator=generator) for key in names})
        for name in ("one", "two")
    ]
    found = alliage.interference(base, models, top_k=0.5)
    frame = found.picture("kinds").to_pandas().set_index(["kind", "layer"])["conflict"]
    assert {kind for kind, _ in frame.index} == {"encoder.block query", "decoder.block query"}
    for stack in ("encoder", "decoder"):
        module = f"{stack}.block.1.layer.0.SelfAttention.q"
        at = found.conflicts("module").sel(top_k=0.5, group=module)
        assert frame[f"{stack}.block query", 1] == float(at["conflict"])


@pytest.mark.parametrize("call", ["conflicts", "pairs", "influence", "magnitudes", "picture"])
def test_unknown_words_get_the_nearest(found, call):
    word, near = {"magnitudes": ("agreemnt", "agreement"), "picture": ("numbr", "number")}.get(
        call, ("modul", "module")
    )
    with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
        getattr(found, call)(word)


def test_models_of_one_module_have_no_layers_to_draw(write):
    import torch

    weights = {"proj.weight": torch.zeros(3, 3)}
    base = write("base", weights)
    models = [
        write(name, {"proj.weight": torch.from_numpy(np.full((3, 3), sign, np.float32))})
        for name, sign in (("up", 1), ("down", -1))
    ]
    found = alliage.interference(base, models)
    assert "kinds" not in dict(found.pictures())
    assert float(found.conflicts()["conflict"].sel(top_k=0.2, group="model")) == 1
