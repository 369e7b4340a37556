//! The schema `reticle`: is it there, does it fit, and who brings it up to date.
//!
//! Whoever connects first and may, migrates; an advisory lock lets one at a time. A box whose
//! role may not change the schema works with one that is new enough.
//!
//! A schema that is newer than this program is fine as long as its `compatibility.oldest_reader`
//! is not: migrations only add (tables, views, columns that may be null or have a default,
//! columns at the end of a view), and one that an older program could not live with raises that
//! number. So the boxes of a lab can be updated one by one.

use std::error::Error as StdError;

use refinery::{Migration, Runner};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::{LONG_STEP, STEP};
use super::fault::{Failure, within};

/// All migrations, oldest first. Frozen once released: mend by adding one that only adds.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__schema", concat!(include_str!("sql/V1__schema.sql"), include_str!("sql/V1__views.sql"))),
    // What a later release may add, for the test that shows the way back from it.
    #[cfg(feature = "next-migration")]
    ("V2__next", include_str!("sql/V2__next.sql")),
];

/// Where refinery writes down what was applied.
const HISTORY: &str = "reticle.schema_history";

/// Key of the advisory lock: "reticle" in ASCII.
const LOCK: i64 = 0x0072_6574_6963_6c65;

/// The rights that a delivery needs, by table.
const RIGHTS: [(&str, &[&str]); 9] = [
    (HISTORY, &["SELECT"]),
    ("reticle.compatibility", &["SELECT"]),
    ("reticle.box", &["SELECT", "INSERT"]),
    ("reticle.store", &["SELECT", "INSERT", "UPDATE"]),
    ("reticle.session", &["SELECT", "INSERT", "UPDATE"]),
    ("reticle.frame", &["SELECT", "INSERT", "UPDATE"]),
    ("reticle.model", &["SELECT", "INSERT"]),
    ("reticle.segmentation", &["SELECT", "INSERT", "UPDATE"]),
    ("reticle.object", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// What the database says of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// 0 where there is none.
    version: i32,
    /// The oldest version that a program must know; `None` where the schema does not say, as those
    /// of programs before the first release.
    oldest_reader: Option<i32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fits,
    MustMigrate,
    TooNew { needed: i32 },
    Unreleased,
}

/// The newest version that this program knows.
pub(super) fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Makes sure of a schema that this program can write to.
pub(super) async fn ready(client: &mut Client) -> Result<(), Failure> {
    let found = find(client).await?;
    match verdict(found, newest()) {
        Verdict::Fits => Ok(()),
        Verdict::TooNew { needed } => Err(too_new(found, needed)),
        Verdict::Unreleased => Err(unreleased()),
        Verdict::MustMigrate => migrate(client).await,
    }
}

/// Whether the schema fits as it is; false where a delivery would first bring it up to date.
/// Changes nothing.
pub(super) async fn is_ready(client: &Client) -> Result<bool, Failure> {
    let found = find(client).await?;
    match verdict(found, newest()) {
        Verdict::Fits => Ok(true),
        Verdict::TooNew { needed } => Err(too_new(found, needed)),
        Verdict::Unreleased => Err(unreleased()),
        Verdict::MustMigrate => Ok(false),
    }
}

/// What the role may not do, of what a delivery needs; empty where all is well.
pub(super) async fn missing_rights(client: &Client) -> Result<Vec<String>, Failure> {
    let (mut tables, mut rights) = (Vec::new(), Vec::new());
    for (table, needed) in RIGHTS {
        for right in needed {
            tables.push(table);
            rights.push(*right);
        }
    }
    let rows = within(
        STEP,
        "read the role's rights",
        client.query(
            "SELECT right_ || ' on ' || table_
         FROM unnest($1::text[], $2::text[]) AS needed (table_, right_)
         WHERE NOT has_table_privilege(table_, right_)
         UNION ALL
         SELECT 'TEMPORARY on database ' || current_database()
         WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')",
            &[&tables, &rights],
        ),
    )
    .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn verdict(found: Found, known: i32) -> Verdict {
    match found.oldest_reader {
        None if found.version > 0 => Verdict::Unreleased,
        Some(needed) if needed > known => Verdict::TooNew { needed },
        _ if found.version < known => Verdict::MustMigrate,
        _ => Verdict::Fits,
    }
}

fn unreleased() -> Failure {
    Failure::stop(
        "its schema reticle was made by a Reticle from before version 0.1.0, which this one cannot \
         work with: give this box another database, or drop the schema (DROP SCHEMA reticle CASCADE) \
         and let the boxes deliver everything again (`reticle sync retry --everything`)",
    )
}

fn too_new(found: Found, needed: i32) -> Failure {
    Failure::stop(format!(
        "its schema reticle (version {}) wants programs that know version {}, and this one knows \
         {}: update Reticle on this box",
        found.version,
        needed,
        newest()
    ))
}

async fn find(client: &Client) -> Result<Found, Failure> {
    const READ: &str = "read the schema's version";
    let exists = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&HISTORY]);
    if !within(STEP, READ, exists).await?.get::<_, bool>(0) {
        return Ok(Found { version: 0, oldest_reader: None });
    }
    let newest = client
        .query_one("SELECT coalesce(max(version), 0)::integer FROM reticle.schema_history", &[]);
    let version = within(STEP, READ, newest).await?.get(0);
    let says = client.query_one(
        "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attname = 'oldest_reader'
             AND attrelid = to_regclass('reticle.compatibility') AND NOT attisdropped)",
        &[],
    );
    if !within(STEP, READ, says).await?.get::<_, bool>(0) {
        return Ok(Found { version, oldest_reader: None });
    }
    let oldest = client.query_one("SELECT oldest_reader FROM reticle.compatibility", &[]);
    let oldest_reader = Some(within(STEP, READ, oldest).await?.get(0));
    Ok(Found { version, oldest_reader })
}

/// Brings the schema up to date, one box at a time. The lock is the connection's: it ends with
/// it, however that ends.
async fn migrate(client: &mut Client) -> Result<(), Failure> {
    const WAIT: &str = "wait until no other box changes the schema";
    within(LONG_STEP, WAIT, client.query_one("SELECT pg_advisory_lock($1)", &[&LOCK])).await?;
    let found = find(client).await?;
    let done = match verdict(found, newest()) {
        Verdict::Fits => Ok(()),
        Verdict::TooNew { needed } => Err(too_new(found, needed)),
        Verdict::Unreleased => Err(unreleased()),
        Verdict::MustMigrate => apply(client, found).await,
    };
    let unlocking = client.query_one("SELECT pg_advisory_unlock($1)", &[&LOCK]);
    done.and(within(STEP, "let other boxes change the schema", unlocking).await.map(drop))
}

async fn apply(client: &mut Client, found: Found) -> Result<(), Failure> {
    let create = async {
        // Not IF NOT EXISTS, which asks for the right to create even where the schema is there.
        let there = client.query_one("SELECT to_regnamespace('reticle') IS NOT NULL", &[]).await?;
        if there.get(0) {
            return Ok(());
        }
        client.batch_execute("CREATE SCHEMA reticle").await
    };
    let created = tokio::time::timeout(STEP, create).await;
    match created {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(refused(&error, found)),
        Err(_) => return Err(Failure::retry("make the schema reticle: no answer")),
    }
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::stop(error.to_string()))?;
    let mut runner = Runner::new(&migrations);
    runner.set_migration_table_name(HISTORY);
    match tokio::time::timeout(LONG_STEP, runner.run_async(client)).await {
        Ok(Ok(report)) => {
            for migration in report.applied_migrations() {
                tracing::info!(%migration, "central schema brought up to date");
            }
            Ok(())
        }
        Ok(Err(error)) => Err(match postgres_cause(&error) {
            Some(cause) => refused(cause, found),
            None => Failure::stop(format!(
                "its schema reticle cannot be brought up to date: {error}; was it changed by hand?"
            )),
        }),
        Err(_) => Err(Failure::retry("bring the schema reticle up to date: no answer")),
    }
}

/// A role that may not change the schema is no fault of the role: another is meant to.
fn refused(error: &tokio_postgres::Error, found: Found) -> Failure {
    if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return Failure::of("bring the schema reticle up to date", error);
    }
    let state = match found.version {
        0 => "there is no schema reticle yet".to_owned(),
        version => format!("the schema reticle is version {version}"),
    };
    Failure::stop(format!(
        "{state}, this Reticle needs version {}, and the role may not make it so ({error}): let a \
         box whose role may connect first, or grant this one the right, see \"Rights\" in \
         docs/guide/database.md",
        newest(),
        error = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string),
    ))
}

fn postgres_cause(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_written_to_as_long_as_it_allows_this_program() {
        let judge = |version, oldest_reader| verdict(Found { version, oldest_reader }, 2);
        assert_eq!(judge(0, None), Verdict::MustMigrate);
        assert_eq!(judge(1, Some(1)), Verdict::MustMigrate);
        assert_eq!(judge(2, Some(1)), Verdict::Fits);
        assert_eq!(judge(9, Some(2)), Verdict::Fits);
        assert_eq!(judge(9, Some(3)), Verdict::TooNew { needed: 3 });
        assert_eq!(judge(5, None), Verdict::Unreleased, "the last one before the first release");
    }
}
