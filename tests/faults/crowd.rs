//! Others who use PostgreSQL: they take all of its connections.

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::common::wait_for;

/// Connections that are held until it goes out of scope.
pub(crate) struct Crowd {
    runtime: Runtime,
    config: Config,
    clients: Vec<Client>,
    tasks: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Crowd {
    /// What they are called in `pg_stat_activity`.
    pub(crate) const NAME: &str = "crowd";

    /// Takes all connections that the role of `url` may have. `alone` is asked whether somebody
    /// else has any left, and is to end those.
    pub(crate) fn hold_all(url: &str, password: &str, alone: impl Fn() -> bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut config: Config = url.parse().expect("the address of the test's own server");
        config.password(password).application_name(Self::NAME);
        let mut crowd = Self {
            runtime: runtime.expect("a runtime can be made"),
            config,
            clients: Vec::new(),
            tasks: JoinSet::new(),
        };
        wait_for("the crowd to have all connections", || {
            // None left to take, and none that was taken before: in this order.
            let took = crowd.take();
            (alone() && took == 0).then_some(())
        });
        assert!(!crowd.clients.is_empty(), "there was nothing to take");
        crowd
    }

    /// Takes what there is; how many that were.
    fn take(&mut self) -> usize {
        let before = self.clients.len();
        loop {
            let Self { runtime, config, clients, tasks } = self;
            let connected = runtime.block_on(async {
                let (client, connection) = config.connect(NoTls).await?;
                tasks.spawn(connection);
                Ok::<_, tokio_postgres::Error>(client)
            });
            match connected {
                Ok(client) => clients.push(client),
                Err(error) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) => {
                    return clients.len() - before;
                }
                Err(error) => panic!("a connection is refused for another reason: {error}"),
            }
        }
    }
}
