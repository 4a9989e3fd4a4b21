//! What a probe ends with that did not find its target in order.

use crate::outcome::Class;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The target is to blame. The words may have anything in them that came from it.
    Target(Class, String),
    /// We are: nothing can be said of the target.
    Ours(String),
}
