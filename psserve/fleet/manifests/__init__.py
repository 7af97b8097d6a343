"""A fleet as Kubernetes runs it: objects made from the plan that `psserve launch` makes, and what their pods run."""
