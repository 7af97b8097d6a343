"""What a request's body may say, field by field, and what it means."""
