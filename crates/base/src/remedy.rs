//! What the caller of a failed operation can do about it.

/// What to do about a failure. Every error that a stage may retry carries one, so that retrying,
/// giving one item up and stopping are told apart by type and never by text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same may work later: the network, a server and its load, room on the disk. Other items
    /// have to wait as well.
    Retry,
    /// This item can never succeed; the others can.
    GiveUp,
    /// Nothing can succeed until a person has acted: credentials, rights, a damaged database. A
    /// stage tries again now and then all the same, because people act without telling it.
    Stop,
}
