//! What one may do to the box over HTTP, and who may do it.
//!
//! Every route is registered with its [`Action`] (`routes.rs`); one function, [`may`], decides.
//! There are no people yet, so who calls is told by the name and the page that a request comes
//! from, and whoever is known may do everything.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::Method;

/// What a request asks for. Roles will be sets of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Learn whether the box works, and nothing else about it.
    Probe,
    /// See the box, its frames and its results.
    See,
    /// Start, pause and stop.
    Run,
}

impl Action {
    /// The word for it in the OpenAPI document.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::See => "see",
            Self::Run => "run",
        }
    }
}

/// Whether a request came as it should; the probes answer others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Under a name of this box, and from no foreign page.
    Known,
    /// Otherwise: it is told nothing about the box.
    Unknown,
}

/// Whether this caller may do that. Probes of an orchestrator call by whatever name.
pub(super) fn may(caller: Caller, action: Action) -> bool {
    match caller {
        Caller::Known => true,
        Caller::Unknown => action == Action::Probe,
    }
}

/// Which action each route asks for. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Actions(Arc<HashMap<(String, Method), Action>>);

impl Actions {
    /// Of these routes, each named by its path as it was registered and its method.
    pub(super) fn new(routes: impl IntoIterator<Item = ((String, Method), Action)>) -> Self {
        Self(Arc::new(routes.into_iter().collect()))
    }

    /// The action of a request that was matched to `path`. Whoever may see the box may see its
    /// page, and that there is no such address.
    pub(super) fn of(&self, path: Option<&str>, method: &Method) -> Action {
        // A router answers HEAD as it does GET.
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        let found = path.and_then(|path| self.0.get(&(path.to_owned(), method)));
        found.copied().unwrap_or(Action::See)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_known_may_probe_and_do_nothing_else() {
        for action in [Action::Probe, Action::See, Action::Run] {
            assert!(may(Caller::Known, action));
            assert_eq!(may(Caller::Unknown, action), action == Action::Probe, "{action:?}");
        }
    }

    #[test]
    fn an_action_is_of_a_path_and_a_method_and_head_is_get() {
        let path = "/readyz".to_owned();
        let actions = Actions::new([((path, Method::GET), Action::Probe)]);
        assert_eq!(actions.of(Some("/readyz"), &Method::GET), Action::Probe);
        assert_eq!(actions.of(Some("/readyz"), &Method::HEAD), Action::Probe);
        assert_eq!(actions.of(Some("/readyz"), &Method::POST), Action::See);
        assert_eq!(actions.of(None, &Method::GET), Action::See);
    }
}
