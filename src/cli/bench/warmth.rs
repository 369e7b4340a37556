//! How warm the box got while it was measured, and whether it was slowed down for that: figures of
//! a throttled box are those of its cooling.

use std::path::PathBuf;

use crate::telemetry::host::{Host, Temperature};
use reticle_base::clock::Clock;

/// The sensors of this box and what they said.
pub(super) struct Warmth {
    host: Host,
    course: Course,
}

/// What the sensors said from the first look to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Course {
    /// `None` where the box tells no temperature.
    pub(super) span: Option<Span>,
    /// Whether the processor was slowed down at any look; `None` where nothing tells.
    pub(super) throttled: Option<bool>,
}

/// Temperatures of the hottest sensor of the processor, °C.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Span {
    /// At the first look.
    pub(super) start_c: f32,
    /// At the last look.
    pub(super) end_c: f32,
    /// At the hottest look.
    pub(super) hottest_c: f32,
    /// Where the processor slows down or stops, where that is known.
    pub(super) limit_c: Option<f32>,
}

impl Warmth {
    /// Begins with a first look.
    pub(super) fn new(clock: Clock) -> Self {
        // The folder would matter for the room on a disk only.
        let mut warmth =
            Self { host: Host::new(PathBuf::from("/"), clock), course: Course::default() };
        warmth.look();
        warmth
    }

    /// Looks at the sensors; some tens of microseconds.
    pub(super) fn look(&mut self) {
        self.course.add(self.host.temperature(), self.host.throttled());
    }

    /// What was seen so far.
    pub(super) fn course(&self) -> Course {
        self.course
    }
}

impl Course {
    fn add(&mut self, temperature: Option<Temperature>, throttled: Option<bool>) {
        if let Some(Temperature { celsius, limit_c }) = temperature {
            let before = self.span.unwrap_or(Span {
                start_c: celsius,
                end_c: celsius,
                hottest_c: celsius,
                limit_c,
            });
            self.span = Some(Span {
                end_c: celsius,
                hottest_c: before.hottest_c.max(celsius),
                limit_c: limit_c.or(before.limit_c),
                ..before
            });
        }
        self.throttled = match (self.throttled, throttled) {
            (Some(before), Some(now)) => Some(before || now),
            (before, now) => now.or(before),
        };
    }

    /// In words, one line.
    pub(super) fn words(&self) -> String {
        let temperature = self.span.map_or_else(
            || "the box tells no temperature".to_owned(),
            |Span { start_c, end_c, hottest_c, limit_c }| {
                let limit = limit_c
                    .map_or_else(String::new, |limit| format!(" (slows down at {limit:.0} °C)"));
                format!(
                    "{start_c:.0} °C at the start, {end_c:.0} °C at the end, {hottest_c:.0} °C at \
                     the hottest{limit}"
                )
            },
        );
        let throttled = match self.throttled {
            Some(true) => "the processor was slowed down: these figures are those of the cooling",
            Some(false) => "the processor was not slowed down",
            None => "it does not tell whether the processor is slowed down",
        };
        format!("{temperature}; {throttled}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(celsius: f32) -> Option<Temperature> {
        Some(Temperature { celsius, limit_c: Some(80.0) })
    }

    #[test]
    fn the_first_the_last_and_the_hottest_are_kept() {
        let mut course = Course::default();
        for celsius in [45.0, 71.5, 68.0] {
            course.add(at(celsius), Some(false));
        }
        let span = Span { start_c: 45.0, end_c: 68.0, hottest_c: 71.5, limit_c: Some(80.0) };
        assert_eq!(course, Course { span: Some(span), throttled: Some(false) });
        assert_eq!(
            course.words(),
            "45 °C at the start, 68 °C at the end, 72 °C at the hottest (slows down at 80 °C); the \
             processor was not slowed down"
        );
    }

    #[test]
    fn slowed_down_once_is_slowed_down() {
        let mut course = Course::default();
        for throttled in [Some(false), Some(true), Some(false), None] {
            course.add(at(81.0), throttled);
        }
        assert_eq!(course.throttled, Some(true));
        assert!(course.words().contains("was slowed down: these figures"), "{}", course.words());
    }

    #[test]
    fn a_box_that_tells_nothing_is_not_guessed_at() {
        let mut course = Course::default();
        course.add(None, None);
        assert_eq!(course, Course::default());
        assert_eq!(
            course.words(),
            "the box tells no temperature; it does not tell whether the processor is slowed down"
        );
    }
}
