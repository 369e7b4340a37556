//! Whether another client uses this box's name at the broker: a second box with the same settings.
//!
//! A broker has one client of a name. A second one throws the first out, which comes back and
//! throws the second one out, and so on; each loses what the other is asked. Signs of it are
//!
//! - the broker's word when it ends the connection (`Session taken over`), where rumqttc can read
//!   it: it does not read a DISCONNECT without properties, which is what mosquitto sends;
//! - `status`: when this box comes back and somebody else has spoken there meanwhile;
//! - in Sparkplug, where nothing is retained: being let in and thrown out again and again.
//!
//! Whoever sees a sign waits longer and longer before coming back, so that two boxes do not fight
//! several times a second and each is there for a part of the time. A second sign is an alarm,
//! which ends after a connection of [`QUIET`] without one: far longer than the longest wait, so that
//! it does not come and go with the turns that two boxes take.

use std::time::Duration;

use reticle_base::backoff::Backoff;
use reticle_base::clock::Stamp;

/// Waits before coming back: after the first sign, and at most.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection of this length without a sign ends the alarm.
const QUIET: Duration = Duration::from_secs(300);

/// Signs that are an alarm. One may be a tool of somebody who looked.
const ALARM: u32 = 2;

/// How often the broker must let in and throw out at once, in a row, to be a sign.
const THROWN_OUT: u32 = 5;

/// What is known of another client of this name.
#[derive(Debug, Default)]
pub(super) struct Namesake {
    /// Signs since the last long quiet connection.
    signs: u32,
    /// Signs since the start.
    total: u64,
    /// The broker named the reason of the last end: what `status` shows of it is no second sign.
    told: bool,
    /// Ends in a row, each soon after the box was let in.
    thrown_out: u32,
    /// When the last sign was seen.
    last: Option<Stamp>,
    /// What the other one said last: the same word heard again is no second sign.
    word: Option<(String, u64)>,
}

impl Namesake {
    fn sign(&mut self, now: &Stamp) {
        self.signs = self.signs.saturating_add(1);
        self.total += 1;
        self.last = Some(*now);
    }

    /// The broker said that another client has taken the name.
    pub(super) fn taken_over(&mut self, now: &Stamp) {
        self.told = true;
        self.sign(now);
    }

    /// Under `status` another instance has spoken, as its word number `sequence`.
    pub(super) fn heard(&mut self, instance: &str, sequence: u64, now: &Stamp) {
        let is_known =
            self.word.as_ref().is_some_and(|(known, last)| known == instance && sequence <= *last);
        if is_known {
            return;
        }
        self.word = Some((instance.to_owned(), sequence));
        if !std::mem::take(&mut self.told) {
            self.sign(now);
        }
    }

    /// A connection ended that the broker had let in, without a reason; `soon` is whether at once.
    pub(super) fn ended(&mut self, soon: bool, now: &Stamp) {
        self.thrown_out = if soon { self.thrown_out + 1 } else { 0 };
        if self.thrown_out == THROWN_OUT {
            self.thrown_out = 0;
            // Nobody else will say so.
            self.signs = self.signs.max(ALARM - 1);
            self.sign(now);
        }
    }

    /// An attempt found no broker: it was no other client that ended the last one.
    pub(super) fn absent(&mut self) {
        self.thrown_out = 0;
    }

    /// A connection has lasted since `since`.
    pub(super) fn lasts(&mut self, since: &Stamp, now: &Stamp) {
        let quiet = |last: &Stamp| now.since(last) >= QUIET;
        if self.signs > 0 && quiet(since) && self.last.as_ref().is_none_or(quiet) {
            let word = self.word.take();
            *self = Self { total: self.total, word, ..Self::default() };
        }
    }

    /// How long to wait before coming back, where there was a sign; `jitter` from 0 to 1.
    pub(super) fn wait(&self, jitter: f64) -> Option<Duration> {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        (self.signs > 0).then(|| backoff.jittered(self.signs, jitter))
    }

    /// What to say of it, while it is an alarm.
    pub(super) fn reason(&self, client_id: &str, broker: &str) -> Option<String> {
        (self.signs >= ALARM).then(|| {
            format!(
                "another client has the name {client_id:?} at {broker} and took it {} times; two \
                 boxes of one name throw each other out: give each its own `name` in [box] (or \
                 `client_id` in [mqtt]) and restart it",
                self.signs
            )
        })
    }

    /// Signs since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;

    /// The other one says something new.
    fn hear(namesake: &mut Namesake, now: &Stamp) {
        let sequence = namesake.word.as_ref().map_or(1, |(_, sequence)| sequence + 2);
        namesake.heard("another instance", sequence, now);
    }

    fn reason(namesake: &Namesake) -> Option<String> {
        namesake.reason("reticle-lab-box-1", "mqtt://broker:1883")
    }

    #[test]
    fn the_second_sign_is_an_alarm_that_names_client_broker_and_remedy() {
        let (mut namesake, now) = (Namesake::default(), Clock::manual(0).now());
        assert_eq!((reason(&namesake), namesake.wait(1.0)), (None, None));
        hear(&mut namesake, &now);
        assert_eq!(reason(&namesake), None);
        hear(&mut namesake, &now);
        let reason = reason(&namesake).unwrap();
        for part in ["\"reticle-lab-box-1\"", "mqtt://broker:1883", "[box]"] {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn the_brokers_word_and_what_status_shows_of_it_are_one_sign() {
        let (mut namesake, now) = (Namesake::default(), Clock::manual(0).now());
        namesake.taken_over(&now);
        hear(&mut namesake, &now);
        assert_eq!(namesake.total(), 1);
        hear(&mut namesake, &now);
        assert_eq!(namesake.total(), 2);
    }

    /// A broker that comes back with an old memory says the same old word each time.
    #[test]
    fn the_same_word_heard_again_is_no_sign() {
        let (mut namesake, now) = (Namesake::default(), Clock::manual(0).now());
        for _ in 0..5 {
            namesake.heard("an old instance", 7, &now);
        }
        assert_eq!((namesake.total(), reason(&namesake)), (1, None));
    }

    #[test]
    fn whoever_is_thrown_out_waits_longer_each_time_up_to_a_minute() {
        let (mut namesake, now) = (Namesake::default(), Clock::manual(0).now());
        let mut waits = Vec::new();
        for _ in 0..40 {
            hear(&mut namesake, &now);
            waits.push(namesake.wait(1.0).unwrap().as_secs());
        }
        assert_eq!(waits[..7], [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
        assert_eq!(namesake.wait(0.0), Some(LONGEST_WAIT / 2), "each by chance");
    }

    /// Two boxes that take turns of a minute each: one alarm, which does not flutter.
    #[test]
    fn the_alarm_lasts_through_the_turns_and_ends_after_a_long_quiet_connection() {
        let (mut namesake, clock) = (Namesake::default(), Clock::manual(0));
        hear(&mut namesake, &clock.now());
        hear(&mut namesake, &clock.now());
        for _ in 0..20 {
            let since = clock.now();
            clock.advance(LONGEST_WAIT);
            namesake.lasts(&since, &clock.now());
            assert!(reason(&namesake).is_some());
            clock.advance(LONGEST_WAIT);
            hear(&mut namesake, &clock.now());
        }
        let since = clock.now();
        clock.advance(QUIET - Duration::from_secs(1));
        namesake.lasts(&since, &clock.now());
        assert!(reason(&namesake).is_some());
        clock.advance(Duration::from_secs(1));
        namesake.lasts(&since, &clock.now());
        assert_eq!((reason(&namesake), namesake.wait(1.0)), (None, None));
        assert_eq!(namesake.total(), 22, "what was counted stays counted");
    }

    #[test]
    fn being_let_in_and_thrown_out_five_times_in_a_row_is_an_alarm_and_a_broker_that_is_away_is_none()
     {
        let (mut namesake, now) = (Namesake::default(), Clock::manual(0).now());
        for _ in 0..20 {
            namesake.ended(true, &now);
            namesake.absent();
        }
        for _ in 0..20 {
            namesake.ended(true, &now);
            namesake.ended(false, &now);
        }
        assert_eq!(namesake.total(), 0);
        for _ in 0..THROWN_OUT {
            namesake.ended(true, &now);
        }
        assert!(reason(&namesake).is_some());
    }
}
