//! Commands over HTTP: what comes with one, and what is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::status::RunState;
use reticle_domain::order;

/// A command that takes nothing but its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::web) enum Command {
    /// Begin a session, or go on after a pause.
    Start,
    /// Hold capture in the open session.
    Pause,
    /// End the session.
    Stop,
    /// Deliver what waits now.
    Deliver,
    /// Give refused and quarantined deliveries another chance.
    RetryDeliveries,
    /// The same, and deliver everything again that was taken.
    DeliverAgain,
    /// Give refused and quarantined images of the watched folder another chance.
    RetryImages,
}

impl Command {
    /// All of them.
    pub(in crate::web) const ALL: [Self; 7] = [
        Self::Start,
        Self::Pause,
        Self::Stop,
        Self::Deliver,
        Self::RetryDeliveries,
        Self::DeliverAgain,
        Self::RetryImages,
    ];

    /// The one of this name.
    pub(in crate::web) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.order().word() == word)
    }

    /// What it orders.
    pub(in crate::web) fn order(self) -> order::Command {
        match self {
            Self::Start => order::Command::Start,
            Self::Pause => order::Command::Pause,
            Self::Stop => order::Command::Stop,
            Self::Deliver => order::Command::Deliver,
            Self::RetryDeliveries => order::Command::RetryDeliveries,
            Self::DeliverAgain => order::Command::DeliverAgain,
            Self::RetryImages => order::Command::RetryImages,
        }
    }

    /// Whether the answer waits until the store has it. The others name a state, which the status
    /// shows.
    pub(in crate::web) fn is_awaited(self) -> bool {
        match self {
            Self::Start | Self::Pause | Self::Stop => false,
            Self::Deliver | Self::RetryDeliveries | Self::DeliverAgain | Self::RetryImages => true,
        }
    }
}

/// What may come with a command.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct CommandBody {
    /// Why, for the record: a sentence or two, 500 bytes at most.
    #[serde(default)]
    pub(in crate::web) reason: Option<String>,
}

/// A command that was taken.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct CommandReply {
    /// Which.
    pub(in crate::web) command: Command,
    /// The run state when it was taken; the status tells when it has changed.
    pub(in crate::web) run: RunState,
    /// How many deliveries or images get another chance, where the command is about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) retried: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_by_the_word_that_is_answered() {
        for command in Command::ALL {
            let word = serde_json::to_value(command).unwrap();
            assert_eq!(Command::of_word(word.as_str().unwrap()), Some(command));
        }
        assert_eq!(Command::of_word("set_exposure"), None, "it needs the exposure");
    }
}
