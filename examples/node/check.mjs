// Two users work on rows of their own, through a pooler in transaction mode, with the library that the
// caller wraps. The program fails if a row or an error differs from the expected one.
//
// Reads tokens from TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED. The provider has signed the
// first three; another key has signed the last one. The tables are those of examples/drizzle.

import assert from 'node:assert/strict';
import { inspect } from 'node:util';

export function variable(name) {
  return process.env[name] ?? assert.fail(`${name} is not set`);
}

/**
 * @param identity runs a function in a transaction with the identity of a token
 * @param sql the operations on todos, each with a connection or a transaction of the library
 * @param sqlstate the SQLSTATE of an error of the library
 * @param Rejection the class of the error for a rejected token
 * @param showHidden whether properties that are not enumerable may not have the token either
 */
export async function check({ db, identity, sql, sqlstate, Rejection, showHidden = true }) {
  const noIdentityIsLeft = async () => {
    assert.equal(await sql.user(db), null);
    assert.deepEqual(await sql.tasks(db), []);
  };

  const owner = await identity(variable('TOKEN_ALICE'), (tx) => sql.add(tx, { task: 'water the plants' }));
  await noIdentityIsLeft();

  await identity(variable('TOKEN_BOB'), async (tx) => {
    assert.notEqual(await sql.add(tx, { task: 'call Alice' }), owner);
    assert.deepEqual(await sql.tasks(tx), ['call Alice']);
    // The statement has no condition. The policy limits it to Bob's rows.
    assert.equal(await sql.finishAll(tx), 1);
  });

  // Bob cannot write a row with Alice as the owner. The transaction is rolled back.
  const inHerName = identity(variable('TOKEN_BOB'), async (tx) => {
    await sql.add(tx, { task: 'is rolled back' });
    await sql.add(tx, { task: 'send Bob money', owner });
  });
  await assert.rejects(inHerName, (error) => sqlstate(error) === '42501');

  // With a rejected token, the function does not run. The error says the reason and does not contain the token.
  for (const [name, code] of [['TOKEN_EXPIRED', '28J04'], ['TOKEN_FORGED', '28J03']]) {
    const token = variable(name);
    const refused = identity(token, () => assert.fail(`${name} was accepted`));
    await assert.rejects(refused, (error) => {
      assert.equal(sqlstate(error), code);
      assert.equal(error.constructor, Rejection);
      assert(!inspect(error, { showHidden, depth: 9 }).includes(token), 'the token is in the error');
      return true;
    });
  }

  await noIdentityIsLeft();
}
