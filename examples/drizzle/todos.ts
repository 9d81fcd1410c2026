// Two users work through a pooler in transaction mode: on a table with rows of each user, and on one
// that all roles may read. The program fails if a row or an error differs from the expected one.
//
// Reads DATABASE_URL, and tokens from TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED. The
// provider has signed the first three; another key has signed the last one.

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { DrizzleQueryError, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { posts, profiles, todos } from './schema';

type Database = ReturnType<typeof drizzle>;
type Transaction = Parameters<Parameters<Database['transaction']>[0]>[0];

/** Runs `work` in a transaction with the identity of the token. Both end together. */
function withIdentity<T>(
  db: Database,
  token: string,
  work: (tx: Transaction) => Promise<T>,
): Promise<T> {
  return db.transaction(async (tx) => {
    const present = sql`select auth.jwt_session_init(${token}, is_local => true)`;
    await tx.execute(present).catch((error) => {
      // Drizzle's error quotes the parameter, the token. Its cause is the server's error.
      throw error instanceof DrizzleQueryError ? error.cause : error;
    });
    return work(tx);
  });
}

function variable(name: string): string {
  return process.env[name] ?? assert.fail(`${name} is not set`);
}

/** Checks that the pooled connection has no identity after the transaction, and reads no rows. */
async function checkNoIdentityIsLeft(db: Database) {
  const { rows } = await db.execute(sql`select auth.user_id() as "user"`);
  assert.deepEqual(rows, [{ user: null }]);
  assert.deepEqual(await db.select().from(todos), []);
}

const db = drizzle(variable('DATABASE_URL'));
const [alice, bob] = [variable('TOKEN_ALICE'), variable('TOKEN_BOB')];

const watering = await withIdentity(db, alice, async (tx) => {
  await tx.insert(profiles).values({ name: 'Alice' });
  await tx.insert(posts).values({ title: 'On plants' });
  // The column's default sets the owner to the user of the token.
  const [todo] = await tx.insert(todos).values({ task: 'water the plants' }).returning();
  return todo;
});
await checkNoIdentityIsLeft(db);

await withIdentity(db, bob, async (tx) => {
  await tx.insert(todos).values({ task: 'call Alice' });
  const tasks = await tx.select({ task: todos.task }).from(todos);
  assert.deepEqual(tasks, [{ task: 'call Alice' }]);
  assert.deepEqual(await tx.select().from(profiles), []);
  // The statement has no condition. The policy limits it to Bob's rows.
  assert.equal((await tx.update(todos).set({ done: true })).rowCount, 1);
  assert.equal((await tx.delete(posts)).rowCount, 0);
});

// Bob cannot write a row with Alice as the owner.
const inHerName = withIdentity(db, bob, (tx) =>
  tx.insert(todos).values({ userId: watering.userId, task: 'send Bob money' }),
);
await assert.rejects(inHerName, (error: DrizzleQueryError) => {
  assert.equal((error.cause as { code?: string }).code, '42501');
  return true;
});

// With a rejected token, `work` does not run. The error says the reason and does not contain the token.
for (const [name, code] of [['TOKEN_EXPIRED', '28J04'], ['TOKEN_FORGED', '28J03']]) {
  const token = variable(name);
  const refused = withIdentity(db, token, () => assert.fail(`${name} was accepted`));
  await assert.rejects(refused, (error: { code?: string }) => {
    assert.equal(error.code, code);
    assert.equal(error.constructor.name, 'DatabaseError'); // That of node-postgres.
    assert(!inspect(error, { showHidden: true }).includes(token));
    return true;
  });
}

await checkNoIdentityIsLeft(db);
assert.deepEqual(await db.select({ title: posts.title }).from(posts), [{ title: 'On plants' }]);
await db.$client.end();
