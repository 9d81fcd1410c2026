// Two users work on rows of their own, through a pooler in transaction mode, with pgx. The program fails if a row
// or an error differs from the expected one.
//
// Reads DATABASE_URL, and tokens from TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED. The provider has
// signed the first three; another key has signed the last one. The tables are those of examples/drizzle.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

// WithIdentity runs work in a transaction with the identity of the token. Both end together.
func WithIdentity(ctx context.Context, pool *pgxpool.Pool, token string, work func(pgx.Tx) error) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // Does nothing after the commit.
	present := "SELECT auth.jwt_session_init($1, is_local => true)"
	if _, err := tx.Exec(ctx, present, token); err != nil {
		return err
	}
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// NeedsNewToken says whether a new token of the user may be accepted.
func NeedsNewToken(err error) bool {
	var failure *pgconn.PgError
	return errors.As(err, &failure) && failure.Code == "28J04"
}

func sqlstate(err error) string {
	var failure *pgconn.PgError
	if errors.As(err, &failure) {
		return failure.Code
	}
	return fmt.Sprint(err)
}

func main() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	must(err)
	// PgBouncer supports named prepared statements only from 1.21 on.
	config.ConnConfig.BuildStatementCache = nil
	pool, err := pgxpool.ConnectConfig(ctx, config)
	must(err)
	defer pool.Close()

	// The column's default sets the owner to the user of the token.
	var alice string
	must(WithIdentity(ctx, pool, os.Getenv("TOKEN_ALICE"), func(tx pgx.Tx) error {
		insert := "INSERT INTO todos (task) VALUES ($1) RETURNING user_id"
		return tx.QueryRow(ctx, insert, "water the plants").Scan(&alice)
	}))
	checkNoIdentityIsLeft(ctx, pool)

	bob := os.Getenv("TOKEN_BOB")
	must(WithIdentity(ctx, pool, bob, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO todos (task) VALUES ($1)", "call Alice")
		must(err)
		var tasks []string
		must(tx.QueryRow(ctx, "SELECT array_agg(task) FROM todos").Scan(&tasks))
		checkEqual(fmt.Sprint(tasks), "[call Alice]")
		// The statement has no condition. The policy limits it to Bob's rows.
		updated, err := tx.Exec(ctx, "UPDATE todos SET done = true")
		must(err)
		checkEqual(updated.String(), "UPDATE 1")
		return nil
	}))

	// Bob cannot write a row with Alice as the owner.
	err = WithIdentity(ctx, pool, bob, func(tx pgx.Tx) error {
		insert := "INSERT INTO todos (user_id, task) VALUES ($1, 'send Bob money')"
		_, err := tx.Exec(ctx, insert, alice)
		return err
	})
	checkEqual(sqlstate(err), "42501")

	// With a rejected token, the work does not run. The SQLSTATE says the reason.
	for name, code := range map[string]string{"TOKEN_EXPIRED": "28J04", "TOKEN_FORGED": "28J03"} {
		token := os.Getenv(name)
		err := WithIdentity(ctx, pool, token, func(pgx.Tx) error {
			panic("the token was accepted")
		})
		checkEqual(sqlstate(err), code)
		checkEqual(fmt.Sprint(NeedsNewToken(err)), fmt.Sprint(name == "TOKEN_EXPIRED"))
		if strings.Contains(err.Error(), token) {
			panic("the error contains the token")
		}
	}
	checkNoIdentityIsLeft(ctx, pool)
}

// The pooled connection has no identity after the transaction, and reads no rows.
func checkNoIdentityIsLeft(ctx context.Context, pool *pgxpool.Pool) {
	var user *string
	var rows int
	must(pool.QueryRow(ctx, "SELECT auth.user_id()").Scan(&user))
	must(pool.QueryRow(ctx, "SELECT count(*) FROM todos").Scan(&rows))
	if user != nil || rows != 0 {
		panic("an identity is left")
	}
}

func checkEqual(found, expected string) {
	if found != expected {
		panic(fmt.Sprintf("%q is not %q", found, expected))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
