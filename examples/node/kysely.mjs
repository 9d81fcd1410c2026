// Kysely, on node-postgres.

import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { check, variable } from './check.mjs';

/** Runs `work` in a transaction with the identity of the token. Both end together. */
function withIdentity(db, token, work) {
  return db.transaction().execute(async (tx) => {
    await sql`SELECT auth.jwt_session_init(${token}, is_local => true)`.execute(tx);
    return work(tx);
  });
}

const pool = new pg.Pool({ connectionString: variable('DATABASE_URL'), max: 2 });
const db = new Kysely({ dialect: new PostgresDialect({ pool }) });
await check({
  db,
  identity: (token, work) => withIdentity(db, token, work),
  sql: {
    async user(db) {
      const { rows } = await sql`SELECT auth.user_id() AS "user"`.execute(db);
      return rows[0].user;
    },
    async tasks(db) {
      const rows = await db.selectFrom('todos').select('task').execute();
      return rows.map((row) => row.task);
    },
    async add(db, { task, owner }) {
      const values = owner ? { task, user_id: owner } : { task };
      const insert = db.insertInto('todos').values(values).returning('user_id');
      return (await insert.executeTakeFirstOrThrow()).user_id;
    },
    async finishAll(db) {
      const { numUpdatedRows } = await db.updateTable('todos').set({ done: true }).executeTakeFirst();
      return Number(numUpdatedRows);
    },
  },
  sqlstate: (error) => error.code,
  Rejection: pg.DatabaseError,
});
await db.destroy();
