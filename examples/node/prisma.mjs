// Prisma with its adapter for node-postgres. `npm run generate` writes the client.

import { PrismaPg } from '@prisma/adapter-pg';
import { Prisma, PrismaClient } from '@prisma/client';
import { check, variable } from './check.mjs';

/** Runs `work` in a transaction with the identity of the token. Both end together. */
function withIdentity(prisma, token, work) {
  return prisma.$transaction(async (tx) => {
    await tx.$executeRaw`SELECT auth.jwt_session_init(${token}, is_local => true)`;
    return work(tx);
  });
}

const adapter = new PrismaPg({ connectionString: variable('DATABASE_URL'), max: 2 });
const prisma = new PrismaClient({ adapter });
await check({
  db: prisma,
  identity: (token, work) => withIdentity(prisma, token, work),
  sql: {
    async user(db) {
      const [{ user }] = await db.$queryRaw`SELECT auth.user_id() AS "user"`;
      return user;
    },
    async tasks(db) {
      return (await db.todo.findMany()).map((todo) => todo.task);
    },
    async add(db, { task, owner }) {
      return (await db.todo.create({ data: { task, userId: owner } })).userId;
    },
    async finishAll(db) {
      return (await db.todo.updateMany({ data: { done: true } })).count;
    },
  },
  // Of a raw statement, and of a query of a model.
  sqlstate: (error) => (error.meta?.driverAdapterError ?? error).cause.originalCode,
  Rejection: Prisma.PrismaClientKnownRequestError,
});
await prisma.$disconnect();
