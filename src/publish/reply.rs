//! Where a command may have its answer sent, besides its own topic.
//!
//! An answer is published with the box's rights, which the asker need not have. So a response
//! topic is served only below the box's own `reply/`, and below prefixes that the owner of the box
//! listed. A command that names another one is refused, and nothing is said under it.

use super::error::PublishError;
use super::options::Options;
use super::topics::Topics;

/// Longest response topic, and longest prefix, bytes.
const LONGEST: usize = 256;

/// Prefixes that are taken at most: each command is compared with all of them.
const MOST: usize = 32;

/// First levels in which a message means something: boxes of ours, Sparkplug, Home Assistant.
const FOREIGN: [&str; 3] = ["reticle", "spBv1.0", "homeassistant"];

const KEY: &str = "mqtt.reply_prefixes";

/// Which response topics are served.
#[derive(Clone, Debug)]
pub(super) struct Replies {
    /// Each without a `/` at its end.
    prefixes: Vec<String>,
}

impl Replies {
    /// # Errors
    /// Names the prefix that cannot be meant.
    pub(super) fn of(options: &Options, topics: &Topics) -> Result<Self, PublishError> {
        let wrong = |why: String| Err(PublishError::stop(KEY, why));
        if options.reply_prefixes.len() > MOST {
            return wrong(format!("has more than {MOST} prefixes; name fewer, shorter ones"));
        }
        let mut prefixes = vec![topics.replies()];
        for given in &options.reply_prefixes {
            let prefix = given.strip_suffix('/').unwrap_or(given);
            if prefix.is_empty() || !is_name(prefix) {
                return wrong(format!(
                    "holds {given:?}, which is no beginning of a topic: at most {LONGEST} bytes, \
                     no '+', no '#', no '$' at its begin"
                ));
            }
            let first = prefix.split('/').next().unwrap_or_default();
            if FOREIGN.contains(&first) {
                return wrong(format!(
                    "holds {given:?}, but what is said below {first}/ means something to others; \
                     take a place of its own, as \"answers\""
                ));
            }
            prefixes.push(prefix.to_owned());
        }
        Ok(Self { prefixes })
    }

    /// Whether an answer may be published there: at a prefix, or at a whole level below it.
    pub(super) fn allow(&self, topic: &str) -> bool {
        let below = |prefix: &String| {
            topic
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        is_name(topic) && self.prefixes.iter().any(below)
    }

    /// All of them, for people.
    pub(super) fn text(&self) -> String {
        let below = self.prefixes.iter().map(|prefix| format!("{prefix}/"));
        below.collect::<Vec<_>>().join(", ")
    }
}

/// Whether it can be the name of a topic, and one that the broker does not speak itself.
fn is_name(topic: &str) -> bool {
    topic.len() <= LONGEST
        && !topic.starts_with('$')
        && !topic.contains(|c: char| matches!(c, '+' | '#') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_domain::facts::BoxName;

    fn replies(prefixes: &[&str]) -> Result<Replies, PublishError> {
        let name = BoxName { site: "lab".to_owned(), name: "box-1".to_owned() };
        let reply_prefixes = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        let options = Options { reply_prefixes, ..Options::default() };
        Replies::of(&options, &Topics::of(&name).unwrap())
    }

    #[test]
    fn without_prefixes_answers_go_below_the_boxs_own_reply_alone() {
        let replies = replies(&[]).unwrap();
        assert!(replies.allow("reticle/v1/lab/box-1/reply/lab/17"));
        for foreign in [
            "",
            "answers/lab/1",
            "reticle/v1/lab/box-1/status",
            "reticle/v1/lab/box-1/replying",
            "reticle/v1/lab/box-1/cmd/stop/1",
            "reticle/v1/lab/box-2/reply/1",
            "reticle/v1/lab/box-1/reply/+",
            "reticle/v1/lab/box-1/reply/#",
            "$SYS/broker/log",
            "spBv1.0/lab/NCMD/box-2",
            "homeassistant/switch/door/set",
        ] {
            assert!(!replies.allow(foreign), "{foreign}");
        }
        let long = format!("reticle/v1/lab/box-1/reply/{}", "x".repeat(LONGEST));
        assert!(!replies.allow(&long));
    }

    #[test]
    fn a_prefix_is_whole_levels() {
        let replies = replies(&["answers/lab", "lims/"]).unwrap();
        for good in ["answers/lab", "answers/lab/1", "lims/x/y"] {
            assert!(replies.allow(good), "{good}");
        }
        for bad in ["answers", "answers/laboratory", "answers/other/1", "limsx"] {
            assert!(!replies.allow(bad), "{bad}");
        }
    }

    #[test]
    fn a_prefix_that_would_open_what_others_read_is_refused_by_its_key() {
        for bad in [
            "",
            "/",
            "#",
            "a/+",
            "$SYS",
            "spBv1.0",
            "spBv1.0/lab",
            "reticle/v1/lab/box-2",
            "homeassistant/",
        ] {
            assert_eq!(replies(&[bad]).unwrap_err().what, KEY, "{bad:?}");
        }
        assert!(replies(&["x"; 33]).is_err());
    }
}
