//! Settings of the message broker.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use reticle_domain::actor::Action;

/// The lab's message broker (MQTT 5): the table `[mqtt]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `mqtt://host:1883` or, encrypted, `mqtts://host:8883`. Left out: off.
    pub url: Option<String>,
    /// What is spoken: `reticle` (JSON under `reticle/v1/`) or `sparkplug` (Sparkplug B 3.0 under
    /// `spBv1.0/`, for SCADA systems). Never both. In `sparkplug` there are no commands, nothing
    /// is told later, and `session_expiry_s` and `measurements` mean nothing.
    pub mode: Mode,
    /// Name of this box at the broker, other than all others'. Left out: `reticle-SITE-BOX`.
    pub client_id: Option<String>,
    /// User at the broker. The password comes from the environment variable
    /// `RETICLE_MQTT_PASSWORD` or the systemd credential `mqtt-password`.
    pub username: Option<String>,
    /// File with the certificates (PEM) of a CA of one's own.
    pub ca_file: Option<PathBuf>,
    /// File with this box's certificate (PEM), where the broker asks for one.
    pub cert_file: Option<PathBuf>,
    /// File with the key (PEM) of that certificate.
    pub key_file: Option<PathBuf>,
    /// Seconds between two signs of life, 5 to 600. The lab hears that the box is gone after
    /// one and a half of it.
    pub keep_alive_s: u16,
    /// Seconds for which the broker keeps commands for a box that is away.
    pub session_expiry_s: u32,
    /// Operations that may be asked for over the network: `start`, `pause`, `stop`, `snapshot`,
    /// `set_exposure`. Empty: none.
    pub commands: Vec<Op>,
    /// Beginnings of the response topics to which answers to commands are sent, as `answers/lab`:
    /// whole levels, without `+` and `#`. Below the box's own `reply/` they always are; a command
    /// that asks for its answer elsewhere is refused.
    pub reply_prefixes: Vec<String>,
    /// Whether commands are done although nobody keeps this machine's clock in step. A command is
    /// for now; a clock that starts with an old time takes an old one for one of now.
    pub trust_clock: bool,
    /// Which measurements are told: `frames`, `wells`, `both`, or `none`.
    pub measurements: Measurements,
    /// Whether Home Assistant is told, in one message, what there is to show.
    pub home_assistant: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            mode: Mode::Reticle,
            client_id: None,
            username: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            keep_alive_s: 10,
            session_expiry_s: 86_400,
            commands: Vec::new(),
            reply_prefixes: Vec::new(),
            trust_clock: false,
            measurements: Measurements::Both,
            home_assistant: false,
        }
    }
}

/// What is spoken at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Our own topics, in JSON.
    Reticle,
    /// Sparkplug B 3.0.
    Sparkplug,
}

/// What may be asked for over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Begin a session, or go on after a pause.
    Start,
    /// Hold capture; the session stays open.
    Pause,
    /// End the session.
    Stop,
    /// Take one frame now.
    Snapshot,
    /// Set the exposure of the camera.
    SetExposure,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Start, Self::Pause, Self::Stop, Self::Snapshot, Self::SetExposure];

    /// The word for it, as in topics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Stop => "stop",
            Self::Snapshot => "snapshot",
            Self::SetExposure => "set_exposure",
        }
    }

    /// What a client of the broker may do where this is in the settings.
    pub fn action(self) -> Action {
        match self {
            Self::Start => Action::Start,
            Self::Pause => Action::Pause,
            Self::Stop => Action::Stop,
            Self::Snapshot => Action::Snapshot,
            Self::SetExposure => Action::SetExposure,
        }
    }

    /// By its word.
    pub(super) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.word() == word)
    }
}

/// Which measurements are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measurements {
    /// One message a result.
    Frames,
    /// One message a well whose sums have changed.
    Wells,
    /// Both.
    Both,
    /// None.
    None,
}

impl Measurements {
    pub(super) fn frames(self) -> bool {
        matches!(self, Self::Frames | Self::Both)
    }

    pub(super) fn wells(self) -> bool {
        matches!(self, Self::Wells | Self::Both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_an_operation_is_what_is_written_in_the_settings() {
        for op in Op::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.word());
            assert_eq!(Op::of(op.word()), Some(op));
        }
        assert_eq!(Op::of("format_disk"), None);
    }
}
