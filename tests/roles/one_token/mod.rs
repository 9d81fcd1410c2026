//! A plan and the claims that it reads are of one token: no row goes out by the policies of one token's
//! role and the claims of another.
//!
//! One person is `org_admin` of acme by token A and plain `member` of globex by token B. Whatever she
//! does, she sees acme's rows and her own row of globex; the row that both tokens together would show
//! is globex' secret.

mod attacks;
mod fixture;
mod statements;
mod transactions;
