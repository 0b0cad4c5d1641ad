"""What answers: the gateway clients call, and the embedded engine behind it."""
