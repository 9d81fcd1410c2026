import { defineConfig } from 'drizzle-kit';

export default defineConfig({
  dialect: 'postgresql',
  schema: './schema.ts',
  out: './drizzle',
  // `npm run migrate` connects as the role migrator, and not through the pooler.
  dbCredentials: { url: process.env.DATABASE_URL ?? '' },
});
