"""`model: "auto"`: the module is chosen by what a request asks for, from what the manifests say of the modules."""
