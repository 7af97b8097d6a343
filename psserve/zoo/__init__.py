"""The zoo on disk: base, decode modules, manifests, fingerprints, import and materialising of checkpoints."""

from psserve.zoo.disk.model import Base, Module
from psserve.zoo.materialise import materialise, serving_form
from psserve.zoo.zoo import Zoo, find_zoo, zoo_path

__all__ = ["Base", "Module", "Zoo", "find_zoo", "materialise", "serving_form", "zoo_path"]
