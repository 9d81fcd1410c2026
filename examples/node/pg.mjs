// node-postgres without another library.

import pg from 'pg';
import { check, variable } from './check.mjs';

/** Runs `work` in a transaction with the identity of the token. Both end together. */
async function withIdentity(pool, token, work) {
  const client = await pool.connect();
  let lost;
  try {
    await client.query('BEGIN');
    await client.query('SELECT auth.jwt_session_init($1, is_local => true)', [token]);
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((failure) => { lost = failure; });
    throw error;
  } finally {
    client.release(lost); // With an error, the pool closes the connection.
  }
}

const pool = new pg.Pool({ connectionString: variable('DATABASE_URL'), max: 2 });
await check({
  db: pool,
  identity: (token, work) => withIdentity(pool, token, work),
  sql: {
    async user(db) {
      const { rows } = await db.query('SELECT auth.user_id() AS "user"');
      return rows[0].user;
    },
    async tasks(db) {
      const { rows } = await db.query('SELECT task FROM todos');
      return rows.map((row) => row.task);
    },
    async add(db, { task, owner }) {
      const { rows } = owner
        ? await db.query('INSERT INTO todos (task, user_id) VALUES ($1, $2)', [task, owner])
        : await db.query('INSERT INTO todos (task) VALUES ($1) RETURNING user_id', [task]);
      return rows[0].user_id;
    },
    async finishAll(db) {
      return (await db.query('UPDATE todos SET done = true')).rowCount;
    },
  },
  sqlstate: (error) => error.code,
});
await pool.end();
