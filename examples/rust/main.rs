//! Two users work on rows of their own, through a pooler in transaction mode.
//!
//! The program uses the tables of `examples/drizzle`. It fails if a row or an error differs from the
//! expected one. It reads `DATABASE_URL`, and tokens from `TOKEN_ALICE`, `TOKEN_BOB`, `TOKEN_EXPIRED`
//! and `TOKEN_FORGED`. The provider has signed the first three; another key has signed the last one.

use std::env::var;
use std::error::Error;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, Transaction};

/// Runs `work` in a transaction with the identity of the token. Both end together.
async fn with_identity<T>(
    client: &mut Client,
    token: &str,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, tokio_postgres::Error>,
) -> Result<T, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let present = "SELECT auth.jwt_session_init($1, is_local => true)";
    transaction.execute_typed(present, &[(&token, Type::TEXT)]).await?;
    let outcome = work(&transaction).await?;
    transaction.commit().await?;
    Ok(outcome)
}

/// Checks that the pooled connection has no identity after the transaction, and reads no rows.
async fn check_no_identity_is_left(client: &Client) -> Result<(), tokio_postgres::Error> {
    let row = client.query_typed_one("SELECT auth.user_id()", &[]).await?;
    assert_eq!(row.get::<_, Option<&str>>(0), None);
    assert!(client.query_typed("SELECT FROM todos", &[]).await?.is_empty());
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (mut client, connection) = tokio_postgres::connect(&var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    let (alice, bob) = (var("TOKEN_ALICE")?, var("TOKEN_BOB")?);

    let alice_id: String = with_identity(&mut client, &alice, async |transaction| {
        // The column's default sets the owner to the user of the token.
        let insert = "INSERT INTO todos (task) VALUES ($1) RETURNING user_id";
        let task = "water the plants";
        Ok(transaction.query_typed_one(insert, &[(&task, Type::TEXT)]).await?.get(0))
    })
    .await?;
    check_no_identity_is_left(&client).await?;

    with_identity(&mut client, &bob, async |transaction| {
        let insert = "INSERT INTO todos (task) VALUES ($1)";
        transaction.execute_typed(insert, &[(&"call Alice", Type::TEXT)]).await?;
        let rows = transaction.query_typed("SELECT task FROM todos", &[]).await?;
        let tasks: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(tasks, ["call Alice"]);
        // The statement has no condition. The policy limits it to Bob's rows.
        assert_eq!(transaction.execute_typed("UPDATE todos SET done = true", &[]).await?, 1);
        Ok(())
    })
    .await?;

    // Bob cannot write a row with Alice as the owner.
    let in_her_name = with_identity(&mut client, &bob, async |transaction| {
        let insert = "INSERT INTO todos (user_id, task) VALUES ($1, 'send Bob money')";
        transaction.execute_typed(insert, &[(&alice_id, Type::TEXT)]).await
    });
    assert_eq!(sqlstate(&in_her_name.await.unwrap_err()), Some("42501"));

    // With a rejected token, `work` does not run. The SQLSTATE says the reason.
    for (name, code) in [("TOKEN_EXPIRED", "28J04"), ("TOKEN_FORGED", "28J03")] {
        let token = var(name)?;
        let refused = with_identity(&mut client, &token, async |_| -> Result<(), _> {
            panic!("{name} was accepted")
        });
        assert_eq!(sqlstate(&refused.await.unwrap_err()), Some(code));
    }

    check_no_identity_is_left(&client).await?;
    Ok(())
}

fn sqlstate(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(|code| code.code())
}

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}
