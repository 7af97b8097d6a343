"""The SGLang servers as the router sees them: their state, their breakers, requests to them."""
