//! A queue run: what is due, in what order, over which connections.
