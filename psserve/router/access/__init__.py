"""Who may ask what of the router, and how much at a time: everything that is decided before a request is understood."""
