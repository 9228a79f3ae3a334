"""Each method's equations a second time, from the papers: `equations` and `training` share no code with src."""
