//! One submission: header completed, envelope and account chosen, handed to the relay or the queue.
