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

#[test]
#[ignore]
fn hold() {
    let fixture = fixture::Fixture::start();
    let port = fixture.cluster.as_role("postgres").port();
    std::fs::write(std::env::var("HOLD_FILE").unwrap(), port.to_string()).unwrap();
    while std::path::Path::new(&std::env::var("HOLD_FILE").unwrap()).exists() {
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}
