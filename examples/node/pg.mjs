// node-postgres without another library.

import pg from 'pg';
import assert from 'node:assert/strict';
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

/** The HTTP status for an error of the database. A request without a token gets 401 in place of 403. */
function statusOf(error, token) {
  if (error.code === '42501') return token ? 403 : 401;
  if (error.code === '28J09') return 403;
  if (error.code === '28J13') return error.detail.includes('insufficient_scope') ? 403 : 401;
  if (error.code === '53200') return 503;
  return /^28J(0|10|12)/.test(error.code) ? 401 : 500;
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
  Rejection: pg.DatabaseError,
});

// 403 for a row that the policy rejects, 401 for a rejected token and without one, 500 for another error. A demand
// says whether the token lacks a scope or the user has to sign in again.
const insert = (client) => client.query("INSERT INTO todos (task, user_id) VALUES ('x', 'x')");
for (const [token, work, status] of [
  [variable('TOKEN_BOB'), insert, 403],
  ['not a token', insert, 401],
  ['', insert, 401],
  [variable('TOKEN_BOB'), (client) => client.query('SELECT 1 / 0'), 500],
  [variable('TOKEN_BOB'), (client) => client.query("SELECT auth.require_scope('x')"), 403],
  [variable('TOKEN_BOB'), (client) => client.query("SELECT auth.require_fresh('1 hour')"), 401],
]) {
  await assert.rejects(withIdentity(pool, token, work), (error) => statusOf(error, token) === status);
}
await pool.end();
