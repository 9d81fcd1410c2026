// postgres.js.

import postgres from 'postgres';
import { check, variable } from './check.mjs';

/** Runs `work` in a transaction with the identity of the token. Both end together. */
function withIdentity(sql, token, work) {
  return sql.begin(async (tx) => {
    await tx`SELECT auth.jwt_session_init(${token}, is_local => true)`;
    return work(tx);
  });
}

// With names, prepared statements fail behind PgBouncer before 1.21.
const sql = postgres(variable('DATABASE_URL'), { prepare: false, max: 2 });
await check({
  db: sql,
  identity: (token, work) => withIdentity(sql, token, work),
  sql: {
    async user(db) {
      const [row] = await db`SELECT auth.user_id() AS "user"`;
      return row.user;
    },
    async tasks(db) {
      return (await db`SELECT task FROM todos`).map((row) => row.task);
    },
    async add(db, { task, owner }) {
      const [row] = owner
        ? await db`INSERT INTO todos (task, user_id) VALUES (${task}, ${owner})`
        : await db`INSERT INTO todos (task) VALUES (${task}) RETURNING user_id`;
      return row.user_id;
    },
    async finishAll(db) {
      return (await db`UPDATE todos SET done = true`).count;
    },
  },
  sqlstate: (error) => error.code,
  Rejection: postgres.PostgresError,
  showHidden: false, // An error has its parameters in such properties.
});
await sql.end();
