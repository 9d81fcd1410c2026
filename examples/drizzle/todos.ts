// Two users, a table of their own rows and one that all may read, by transaction through a pooler.
// Fails where a row or an error is not what it should be. Reads DATABASE_URL, and as TOKEN_ALICE,
// TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED tokens of the provider's and one that is not.

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { DrizzleQueryError, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { posts, profiles, todos } from './schema';

type Database = ReturnType<typeof drizzle>;
type Transaction = Parameters<Parameters<Database['transaction']>[0]>[0];

/** Runs `work` in a transaction as the user of the token, which is over with the transaction. */
function withIdentity<T>(
  db: Database,
  token: string,
  work: (tx: Transaction) => Promise<T>,
): Promise<T> {
  return db.transaction(async (tx) => {
    const present = sql`select auth.jwt_session_init(${token}, is_local => true)`;
    await tx.execute(present).catch((error) => {
      // Drizzle's error quotes the parameters, which is the token; its cause is the server's.
      throw error instanceof DrizzleQueryError ? error.cause : error;
    });
    return work(tx);
  });
}

function variable(name: string): string {
  return process.env[name] ?? assert.fail(`${name} is not set`);
}

/** The pooled connection without a token: nobody's rows, and nobody. */
async function nobodyIsLeft(db: Database) {
  const { rows } = await db.execute(sql`select auth.user_id() as "user"`);
  assert.deepEqual(rows, [{ user: null }]);
  assert.deepEqual(await db.select().from(todos), []);
}

const db = drizzle(variable('DATABASE_URL'));
const [alice, bob] = [variable('TOKEN_ALICE'), variable('TOKEN_BOB')];

const watering = await withIdentity(db, alice, async (tx) => {
  await tx.insert(profiles).values({ name: 'Alice' });
  await tx.insert(posts).values({ title: 'On plants' });
  // The owner is the default: whoever the token names.
  const [todo] = await tx.insert(todos).values({ task: 'water the plants' }).returning();
  return todo;
});
await nobodyIsLeft(db);

await withIdentity(db, bob, async (tx) => {
  await tx.insert(todos).values({ task: 'call Alice' });
  const tasks = await tx.select({ task: todos.task }).from(todos);
  assert.deepEqual(tasks, [{ task: 'call Alice' }]);
  assert.deepEqual(await tx.select().from(profiles), []);
  // Without a condition, and still his own only.
  assert.equal((await tx.update(todos).set({ done: true })).rowCount, 1);
  assert.equal((await tx.delete(posts)).rowCount, 0);
});

// He writes no rows in her name.
const inHerName = withIdentity(db, bob, (tx) =>
  tx.insert(todos).values({ userId: watering.userId, task: 'send Bob money' }),
);
await assert.rejects(inHerName, (error: DrizzleQueryError) => {
  assert.equal((error.cause as { code?: string }).code, '42501');
  return true;
});

// What is refused runs nothing, and its error tells why, but not the token.
for (const [name, code] of [['TOKEN_EXPIRED', '28J04'], ['TOKEN_FORGED', '28J03']]) {
  const token = variable(name);
  const refused = withIdentity(db, token, () => assert.fail('nobody is there'));
  await assert.rejects(refused, (error: { code?: string }) => {
    assert.equal(error.code, code);
    assert(!inspect(error, { showHidden: true }).includes(token));
    return true;
  });
}

await nobodyIsLeft(db);
assert.deepEqual(await db.select({ title: posts.title }).from(posts), [{ title: 'On plants' }]);
await db.$client.end();
