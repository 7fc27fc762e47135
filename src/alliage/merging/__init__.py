"""One checkpoint out of several: methods, recipe, plan, engine."""
