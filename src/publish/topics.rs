//! The names under which the box speaks: `reticle/v1/<site>/<box>/…`.

use super::error::PublishError;
use reticle_domain::alarm::AlarmKind;
use reticle_domain::facts::BoxName;

/// All topics of one box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topics {
    root: String,
}

impl Topics {
    /// # Errors
    /// Names the key whose value cannot be a level of a topic.
    pub(super) fn of(name: &BoxName) -> Result<Self, PublishError> {
        let site = level("box.site", &name.site)?;
        let own = level("box.name", &name.name)?;
        Ok(Self { root: format!("reticle/v1/{site}/{own}") })
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    pub(super) fn health(&self) -> String {
        format!("{}/health", self.root)
    }

    pub(super) fn twin(&self, part: &str) -> String {
        format!("{}/twin/{part}", self.root)
    }

    pub(super) fn alarm(&self, kind: AlarmKind) -> String {
        format!("{}/a/{}", self.root, kind.word())
    }

    pub(super) fn event(&self, word: &str) -> String {
        format!("{}/e/{word}", self.root)
    }

    pub(super) fn measurement(&self, word: &str) -> String {
        format!("{}/m/{word}", self.root)
    }

    /// What is subscribed to, to hear commands.
    pub(super) fn commands(&self) -> String {
        format!("{}/cmd/+/+", self.root)
    }

    /// Where answers may go besides, see [`super::reply`].
    pub(super) fn replies(&self) -> String {
        format!("{}/reply", self.root)
    }

    /// Where a command is asked and answered.
    pub(super) fn of_command(&self, op: &str, id: &str) -> String {
        format!("{}/cmd/{op}/{id}", self.root)
    }

    /// Operation and id of a command's topic.
    pub(super) fn command<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        topic.strip_prefix(&self.root)?.strip_prefix("/cmd/")?.split_once('/')
    }
}

/// One level of a topic. What would be more than one, or match others, is refused rather than
/// replaced: two boxes could become one.
fn level<'a>(key: &str, text: &'a str) -> Result<&'a str, PublishError> {
    if text.is_empty() {
        return Err(PublishError::stop(key, "is empty; topics need a name, so write one"));
    }
    match text.chars().find(|c| matches!(c, '/' | '+' | '#') || c.is_control()) {
        None => Ok(text),
        Some(c) => Err(PublishError::stop(
            key,
            format!("holds {c:?}, which means something in MQTT topics; leave it out"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(site: &str, name: &str) -> Result<Topics, PublishError> {
        Topics::of(&BoxName { site: site.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn a_name_that_topics_give_a_meaning_is_refused_by_its_key() {
        for bad in ["a/b", "a+", "#", "nul\0", ""] {
            assert_eq!(named(bad, "box").unwrap_err().what, "box.site", "{bad:?}");
            assert_eq!(named("lab", bad).unwrap_err().what, "box.name", "{bad:?}");
        }
    }

    #[test]
    fn a_command_is_told_by_operation_and_id() {
        let topics = named("Labor Süd", "box-1").unwrap();
        let topic = "reticle/v1/Labor Süd/box-1/cmd/start/7f";
        assert_eq!(topics.command(topic), Some(("start", "7f")));
        assert_eq!(topics.command("reticle/v1/Labor Süd/box-2/cmd/start/7f"), None);
        assert_eq!(topics.command(&topics.status()), None);
    }
}
