"""`psserve chat`: a conversation with modules in a terminal."""
