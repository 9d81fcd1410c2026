// Tables whose policies are written by Drizzle's helpers for Neon, and one by those for Supabase.
// `npm run generate` has made the migration in drizzle/ of them, and `npm run migrate` applies it
// where setup.sql has been run.

import { sql } from 'drizzle-orm';
import { anonymousRole, authenticatedRole, authUid, crudPolicy } from 'drizzle-orm/neon';
import { bigint, boolean, pgPolicy, pgTable, text, uuid } from 'drizzle-orm/pg-core';
import * as supabase from 'drizzle-orm/supabase';

const id = bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity();
const userId = text('user_id').notNull().default(sql`auth.user_id()`);

/** Everybody's own. */
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

/** Written by their authors, read by all, those without a token among them. */
export const posts = pgTable('posts', { id, userId, title: text().notNull() }, (table) => [
  crudPolicy({ role: anonymousRole, read: true, modify: false }),
  crudPolicy({ role: authenticatedRole, read: true, modify: authUid(table.userId) }),
]);

/** One for each user, whose `sub` is a UUID. */
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
