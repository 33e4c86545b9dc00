"""Who may ask: tokens, the browser session, trusted hosts, and requests that another site provoked."""
