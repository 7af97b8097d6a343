"""How a base or a module comes into the zoo: found, checked, and put in its place in one step."""
