"""`/dashboard`: a page that shows the fleet at work, and the bounded memory of requests that it is drawn from."""
