//! What needs a look or a hand: alarms, each with its section in `docs/runbook.md`.

/// What is wrong. The word is the same in the API, in MQTT topics, in metrics and in the runbook.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Camera or folder is gone; it is opened again and again.
    SourceLost,
    /// A stage of the daemon makes no progress.
    StageStuck,
    /// A thread of the daemon died.
    ThreadDied,
    /// Results do not reach the disk.
    SavingFails,
    /// The files that are open are not those that the names of the store lead to.
    StoreUnlinked,
    /// Frames are shown and not recorded: there is no room.
    NoRoom,
    /// Little is left free on the disk of the store.
    DiskLow,
    /// A destination takes nothing.
    DeliveryFails,
    /// Something was refused for ever by a destination.
    Quarantined,
    /// Another client uses this box's name at the broker.
    NameTaken,
    /// A destination knows more than this box, or another box delivers in its name.
    ArchiveAhead,
    /// An image of the watched folder is left alone: it ended the daemon twice.
    ImageQuarantined,
    /// The golden frame of the model is segmented differently here.
    ModelDiffers,
    /// Nobody keeps the clock in step.
    ClockUntrusted,
    /// The processor is close to its limit of temperature.
    TooHot,
    /// The processor runs slower than it could, because of heat or weak power.
    Throttled,
    /// Little memory is left.
    MemoryLow,
    /// Whoever reaches this box over the network may watch and command it.
    OpenNetwork,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::SourceLost,
        Self::StageStuck,
        Self::ThreadDied,
        Self::SavingFails,
        Self::StoreUnlinked,
        Self::NoRoom,
        Self::DiskLow,
        Self::DeliveryFails,
        Self::Quarantined,
        Self::NameTaken,
        Self::ArchiveAhead,
        Self::ImageQuarantined,
        Self::ModelDiffers,
        Self::ClockUntrusted,
        Self::TooHot,
        Self::Throttled,
        Self::MemoryLow,
        Self::OpenNetwork,
    ];

    /// The word for it, as `source_lost`.
    pub fn word(self) -> &'static str {
        match self {
            Self::SourceLost => "source_lost",
            Self::StageStuck => "stage_stuck",
            Self::ThreadDied => "thread_died",
            Self::SavingFails => "saving_fails",
            Self::StoreUnlinked => "store_unlinked",
            Self::NoRoom => "no_room",
            Self::DiskLow => "disk_low",
            Self::DeliveryFails => "delivery_fails",
            Self::Quarantined => "quarantined",
            Self::NameTaken => "name_taken",
            Self::ArchiveAhead => "archive_ahead",
            Self::ImageQuarantined => "image_quarantined",
            Self::ModelDiffers => "model_differs",
            Self::ClockUntrusted => "clock_untrusted",
            Self::TooHot => "too_hot",
            Self::Throttled => "throttled",
            Self::MemoryLow => "memory_low",
            Self::OpenNetwork => "open_network",
        }
    }

    /// Whether data is at stake or a person is needed, rather than a look soon.
    pub fn is_urgent(self) -> bool {
        matches!(
            self,
            Self::SourceLost
                | Self::StageStuck
                | Self::SavingFails
                | Self::StoreUnlinked
                | Self::NoRoom
                | Self::ArchiveAhead
                | Self::ModelDiffers
        )
    }
}

/// An alarm that is on.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Alarm {
    /// What is wrong.
    pub kind: AlarmKind,
    /// Since when, RFC 3339 UTC.
    pub since: String,
    /// What was seen, for a person.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_an_alarm_is_what_is_written_in_json() {
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }
    #[test]
    fn every_alarm_has_its_section_in_the_runbook() {
        let runbook = include_str!("../../../docs/runbook.md");
        for kind in AlarmKind::ALL {
            let word = kind.word();
            let heading = format!("\n## {word}\n");
            let (_, rest) =
                runbook.split_once(&heading).unwrap_or_else(|| panic!("no section {word}"));
            let section = rest.split("\n## ").next().unwrap();
            for part in [
                "**What it means.**",
                "**What is safe.**",
                "**What to do.**",
                "**How it ends.**",
                &format!("reticle_alarm{{alarm=\"{word}\"}}"),
                &format!("`a/{word}`"),
            ] {
                assert!(section.contains(part), "section {word} lacks {part}");
            }
        }
    }
}
