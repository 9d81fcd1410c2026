// Drizzle's helpers for Neon write the policies of two tables, those for Supabase that of the third.
// `npm run generate` wrote the migration in drizzle/. `npm run migrate` applies it; run setup.sql
// first.

import { sql } from 'drizzle-orm';
import { anonymousRole, authenticatedRole, authUid, crudPolicy } from 'drizzle-orm/neon';
import { bigint, boolean, pgPolicy, pgTable, text, uuid } from 'drizzle-orm/pg-core';
import * as supabase from 'drizzle-orm/supabase';

const id = bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity();
const userId = text('user_id').notNull().default(sql`auth.user_id()`);

/** Each user reads and writes only rows of their own. */
export const todos = pgTable(
  'todos',
  { id, userId, task: text().notNull(), done: boolean().notNull().default(false) },
  (table) => [
    crudPolicy({
      role: authenticatedRole,
      read: authUid(table.userId),
      modify: authUid(table.userId),
    }),
  ],
);

/** Authors write their posts. Every session reads all posts, also one without a token. */
export const posts = pgTable('posts', { id, userId, title: text().notNull() }, (table) => [
  crudPolicy({ role: anonymousRole, read: true, modify: false }),
  crudPolicy({ role: authenticatedRole, read: true, modify: authUid(table.userId) }),
]);

/** One row for each user. `sub` must be a UUID. */
export const profiles = pgTable(
  'profiles',
  { userId: uuid('user_id').primaryKey().default(sql`auth.uid()`), name: text().notNull() },
  (table) => [
    pgPolicy('own profile', {
      to: supabase.authenticatedRole,
      using: sql`${supabase.authUid} = ${table.userId}`,
    }),
  ],
);
