//! What the tests and examples of the stacks share.
