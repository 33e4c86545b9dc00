"""The pages for the browser, and the routes that serve them."""
