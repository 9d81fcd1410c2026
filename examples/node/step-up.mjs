// The round trip of an action that needs another token than the one at hand, with node-postgres.
//
// It reads DATABASE_URL, TOKEN (of a user with two todos, without scopes, from an old sign-in) and AUTHORIZE_URL, where a
// provider answers an authorization request with a token. The function is that of step-up.sql.

import pg from 'pg';
import assert from 'node:assert/strict';
import { variable } from './check.mjs';

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

/** Runs `work` as `withIdentity` does. Where it needs another token, gets one, and runs it again. */
async function withStepUp(pool, token, newToken, work) {
  const demands = new Set();
  for (;;) {
    try {
      return await withIdentity(pool, token, work);
    } catch (error) {
      if (error.code !== '28J13' || demands.has(error.detail)) throw error;
      demands.add(error.detail);
      const { scope, max_age, acr_values } = JSON.parse(error.detail);
      token = await newToken({ scope, max_age, acr_values });
    }
  }
}

/** Requests a token from the provider, with the parameters that DETAIL names. */
async function newToken({ scope, ...parameters }) {
  const url = new URL(variable('AUTHORIZE_URL'));
  granted = new Set([...granted, ...(scope ? [scope] : [])]);
  url.searchParams.set('scope', [...granted].join(' '));
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) url.searchParams.set(name, value);
  }
  const response = await fetch(url);
  return (await response.json()).access_token;
}

/** The scopes that the application has requested. */
let granted = new Set(['openid']);

const pool = new pg.Pool({ connectionString: variable('DATABASE_URL'), max: 1 });
const deleteTodos = async (client) => {
  const { rows } = await client.query('SELECT delete_todos() AS deleted');
  return Number(rows[0].deleted);
};

// The token at hand does not suffice: the demands come one after the other, and nothing is deleted before.
const told = [];
const toldToken = async (demand) => {
  told.push(Object.keys(demand).filter((name) => demand[name] !== undefined).join(' '));
  return newToken(demand);
};
assert.equal(await withStepUp(pool, variable('TOKEN'), toldToken, deleteTodos), 2);
assert.deepEqual(told, ['scope', 'max_age acr_values']);

// A provider that does not give what was asked for is not asked again and again.
let asked = 0;
const sameToken = async () => { asked += 1; return variable('TOKEN'); };
await assert.rejects(
  withStepUp(pool, variable('TOKEN'), sameToken, deleteTodos),
  (error) => error.code === '28J13' && JSON.parse(error.detail).error === 'insufficient_scope',
);
assert.equal(asked, 1);
await pool.end();
