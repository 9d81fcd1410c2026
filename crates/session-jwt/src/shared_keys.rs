//! Operators that sign tokens for many customers with one key set. Only the audience tells for which
//! application such a token is.
//!
//! A host is in the table if one key set signs the tokens of unrelated customers. Three kinds of
//! issuers have such keys:
//!
//! - The issuer is the same for all customers. A token of any customer has the expected `iss`.
//! - The issuer names the customer, and all customers share the keys. A provider with the key URL and
//!   without issuer accepts the tokens of all customers. A provider with the issuer accepts tokens for
//!   other applications of the customer.
//! - The host serves such keys under another issuer.
//!
//! A host is not in the table if each customer has keys of its own: `cognito-idp.REGION`, Auth0, Okta,
//! Clerk, Keycloak, `oidc.eks.REGION.amazonaws.com`, `container.googleapis.com`, Stytch (the key URL
//! names the project, and so does the issuer), `TENANT.b2clogin.com`, Spacelift
//! (`ACCOUNT.app.spacelift.io`), and Salesforce's `ORG.my.salesforce.com`, whose issuer is the
//! organization's own host.

/// A host whose keys are shared by many customers.
pub(crate) struct SharedHost {
    /// The host name. A name that ends with a dot is a prefix, followed by the region.
    pub(crate) host: &'static str,
    /// The operator of the host.
    pub(crate) operator: &'static str,
}

const fn shared(host: &'static str, operator: &'static str) -> SharedHost {
    SharedHost { host, operator }
}

/// The hosts, ordered by operator.
pub(crate) const SHARED_HOSTS: [SharedHost; 131] = [
    // One issuer for every OAuth client.
    shared("accounts.google.com", "Google"),
    // One key set for all projects; the issuer names the project.
    shared("securetoken.google.com", "Google"),
    shared("session.firebase.google.com", "Google"),
    // The keys of the three above, and of Google's service accounts.
    shared("www.googleapis.com", "Google"),
    // Identity-Aware Proxy: one issuer for all backends, and the host of its keys.
    shared("cloud.google.com", "Google"),
    shared("www.gstatic.com", "Google"),
    // Attestation tokens: one issuer for all projects.
    shared("confidentialcomputing.googleapis.com", "Google"),
    // App Check: one key set for all projects; the issuer names the project.
    shared("firebaseappcheck.googleapis.com", "Google"),
    // One key set for all tenants; the issuer names the tenant, and a tenant has many applications.
    shared("login.microsoftonline.com", "Microsoft"),
    shared("login-us.microsoftonline.com", "Microsoft"),
    shared("login.microsoft.com", "Microsoft"),
    shared("login.windows.net", "Microsoft"),
    shared("sts.windows.net", "Microsoft"),
    shared("login.microsoftonline.us", "Microsoft"),
    shared("login.usgovcloudapi.net", "Microsoft"),
    shared("login.partner.microsoftonline.cn", "Microsoft"),
    shared("login.chinacloudapi.cn", "Microsoft"),
    shared("accounts.accesscontrol.windows.net", "Microsoft"),
    // One issuer for every application.
    shared("login.live.com", "Microsoft"),
    // Bot Framework: one issuer for all bots, and the host of its keys.
    shared("api.botframework.com", "Microsoft"),
    shared("login.botframework.com", "Microsoft"),
    // Azure Pipelines: one key set; the issuer names the organization.
    shared("vstoken.dev.azure.com", "Microsoft"),
    // One issuer for every application.
    shared("appleid.apple.com", "Apple"),
    shared("account.apple.com", "Apple"),
    // Identity pools: one issuer for all of them; the audience is the pool.
    shared("cognito-identity.amazonaws.com", "Amazon"),
    shared("cognito-identity-us-gov.amazonaws.com", "Amazon"),
    shared("cognito-identity.", "Amazon"),
    // Load balancers of a region sign with the same keys, and their tokens have no audience.
    shared("public-keys.auth.elb.", "Amazon"),
    // Verified Access: the keys of a region.
    shared("public-keys.prod.verified-access.", "Amazon"),
    // Login with Amazon: one issuer for every application.
    shared("www.amazon.com", "Amazon"),
    shared("api.amazon.com", "Amazon"),
    // Actions: one issuer for all repositories. An enterprise may have a path of its own.
    shared("token.actions.githubusercontent.com", "GitHub"),
    shared("vstoken.actions.githubusercontent.com", "GitHub"),
    // Streams of audit logs: one issuer for all enterprises.
    shared("oidc-configuration.audit-log.githubusercontent.com", "GitHub"),
    // Sign-in: one issuer for every application.
    shared("github.com", "GitHub"),
    // One issuer for all pipelines and all applications.
    shared("gitlab.com", "GitLab"),
    // Pipelines: one key set; the issuer names the workspace.
    shared("api.bitbucket.org", "Bitbucket"),
    // Build and deployment services. One issuer for all customers:
    shared("app.terraform.io", "HashiCorp"),
    shared("app.eu.terraform.io", "HashiCorp"),
    shared("agent.buildkite.com", "Buildkite"),
    shared("api.gitpod.io", "Gitpod"),
    shared("app.gitpod.io", "Gitpod"),
    shared("oidc.codefresh.io", "Codefresh"),
    shared("token.builds.bitrise.io", "Bitrise"),
    shared("oidc.cirrus-ci.com", "Cirrus CI"),
    shared("oidc.modal.com", "Modal"),
    shared("identity.depot.dev", "Depot"),
    shared("federation.namespaceapis.com", "Namespace"),
    shared("login.app.env0.com", "env0"),
    shared("scalr.io", "Scalr"),
    shared("proidc.upbound.io", "Upbound"),
    shared("issuer.enforce.dev", "Chainguard"),
    shared("oauth2.sigstore.dev", "Sigstore"),
    shared("studio.datachain.ai", "DVC Studio"),
    shared("tokens.cloud.shisho.dev", "Shisho Cloud"),
    shared("sandboxes.cloud", "sandboxes.cloud"),
    // Agents that write code. Cursor's second host is that of its former issuer.
    shared("api.cursor.com", "Cursor"),
    shared("api2.cursor.sh", "Cursor"),
    shared("app.devin.ai", "Devin"),
    shared("app.warp.dev", "Warp"),
    // Identity and access management: one issuer and one key set for all accounts.
    shared("iam.cloud.ibm.com", "IBM"),
    // The issuer may name the team or the organization, and the keys are one set:
    shared("oidc.vercel.com", "Vercel"),
    shared("vercel.com", "Vercel"),
    shared("oidc.circleci.com", "CircleCI"),
    // One issuer for all organizations, which choose the audience.
    shared("api.pulumi.com", "Pulumi"),
    // One issuer for all applications.
    shared("login.eveonline.com", "EVE Online"),
    shared("oidc.fly.io", "Fly.io"),
    shared("app.harness.io", "Harness"),
    // Identity services. One issuer for all customers:
    shared("login.salesforce.com", "Salesforce"),
    shared("test.salesforce.com", "Salesforce"),
    shared("api.workos.com", "WorkOS"),
    shared("oauth.id.jumpcloud.com", "JumpCloud"),
    shared("openid-connect.onelogin.com", "OneLogin"),
    shared("api-auth.web3auth.io", "Web3Auth"),
    shared("api.openlogin.com", "Web3Auth"),
    // SAP ID service. Identity Authentication has a host for each tenant.
    shared("accounts.sap.com", "SAP"),
    shared("auth.globus.org", "Globus"),
    shared("cilogon.org", "CILogon"),
    shared("clever.com", "Clever"),
    // Sign-in with an account for consumers: one issuer for every application.
    shared("www.facebook.com", "Facebook"),
    shared("limited.facebook.com", "Facebook"),
    shared("facebook.com", "Facebook"),
    shared("www.linkedin.com", "LinkedIn"),
    shared("slack.com", "Slack"),
    shared("slack-gov.com", "Slack"),
    shared("id.twitch.tv", "Twitch"),
    shared("access.line.me", "LINE"),
    shared("api.line.me", "LINE"),
    shared("discord.com", "Discord"),
    shared("www.paypal.com", "PayPal"),
    shared("www.paypalobjects.com", "PayPal"),
    shared("api.login.yahoo.com", "Yahoo"),
    shared("auth.login.yahoo.co.jp", "Yahoo! JAPAN"),
    shared("kauth.kakao.com", "Kakao"),
    shared("nid.naver.com", "Naver"),
    shared("apis.roblox.com", "Roblox"),
    shared("huggingface.co", "Hugging Face"),
    shared("www.dropbox.com", "Dropbox"),
    shared("identity.xero.com", "Xero"),
    shared("oauth.platform.intuit.com", "Intuit"),
    shared("secure.login.gov", "Login.gov"),
    shared("idp.int.identitysandbox.gov", "Login.gov"),
    shared("oidc.account.gov.uk", "GOV.UK One Login"),
    shared("api.id.me", "ID.me"),
    shared("api.idmelabs.com", "ID.me"),
    shared("orcid.org", "ORCID"),
    shared("oauth.telegram.org", "Telegram"),
    shared("auth.atlassian.com", "Atlassian"),
    shared("oauth.battle.net", "Battle.net"),
    shared("oauth.battlenet.com.cn", "Battle.net"),
    shared("api.epicgames.dev", "Epic Games"),
    shared("auth.riotgames.com", "Riot Games"),
    shared("developer.api.autodesk.com", "Autodesk"),
    shared("ims-na1.adobelogin.com", "Adobe"),
    shared("account.docusign.com", "DocuSign"),
    shared("account-d.docusign.com", "DocuSign"),
    shared("accounts.firefox.com", "Mozilla"),
    shared("public-api.wordpress.com", "WordPress.com"),
    shared("www.openstreetmap.org", "OpenStreetMap"),
    shared("codeberg.org", "Codeberg"),
    shared("replit.com", "Replit"),
    shared("auth.tesla.com", "Tesla"),
    // A host for each region.
    shared("accounts.zoho.com", "Zoho"),
    shared("accounts.zoho.eu", "Zoho"),
    shared("accounts.zoho.in", "Zoho"),
    shared("accounts.zoho.com.au", "Zoho"),
    shared("accounts.zoho.jp", "Zoho"),
    shared("accounts.zoho.sa", "Zoho"),
    shared("accounts.zoho.uk", "Zoho"),
    shared("accounts.zoho.com.cn", "Zoho"),
    shared("accounts.zohocloud.ca", "Zoho"),
];

/// Paths of such hosts below which each customer has an issuer or keys of its own. One segment after
/// the path names the customer.
const OWN_PATHS: [(&str, &str); 2] =
    [("api.workos.com", "/user_management/"), ("api.workos.com", "/sso/jwks/")];

/// The operator of a host whose keys are shared by many customers; None for other hosts. `host` is in
/// lower case. `path` is the part of the URL after host and port.
pub(crate) fn operator_of(host: &str, path: &str) -> Option<&'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_meant = |shared: &&SharedHost| {
        host == shared.host || (shared.host.ends_with('.') && host.starts_with(shared.host))
    };
    let found = SHARED_HOSTS.iter().find(is_meant)?;
    (!is_own_path(host, path)).then_some(found.operator)
}

fn is_own_path(host: &str, path: &str) -> bool {
    let is_name = |segment: &str| {
        !segment.is_empty()
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    OWN_PATHS.iter().any(|(owner, prefix)| {
        let segment = path.strip_prefix(prefix).filter(|_| *owner == host);
        segment.is_some_and(|rest| is_name(rest.strip_suffix('/').unwrap_or(rest)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_stand_once() {
        let mut hosts: Vec<_> = SHARED_HOSTS.iter().map(|shared| shared.host).collect();
        hosts.sort_unstable();
        let count = hosts.len();
        hosts.dedup();
        assert_eq!(hosts.len(), count);
        for host in hosts {
            assert_eq!(host, host.to_ascii_lowercase());
            assert!(!host.starts_with('.') && host.contains('.'), "{host}");
        }
    }

    #[test]
    fn the_documentation_lists_them() {
        let page = include_str!("../../../docs/identity-providers.md");
        for SharedHost { host, operator } in &SHARED_HOSTS {
            let host = host
                .strip_suffix('.')
                .map_or(format!("`{host}`"), |host| format!("`{host}.REGION\u{2026}`"));
            let start = format!("| {operator} |");
            let mut rows = page.lines().filter(|line| line.starts_with(&start));
            assert!(rows.any(|row| row.contains(&host)), "{operator} {host}");
        }
    }

    #[test]
    fn every_path_of_a_shared_host_is_shared() {
        for shared in &SHARED_HOSTS {
            let host = match shared.host {
                region if region.ends_with('.') => format!("{region}eu-west-1.amazonaws.com"),
                host => host.to_owned(),
            };
            for path in ["", "/", "/a", "/a/b?c", "//"] {
                assert_eq!(operator_of(&host, path), Some(shared.operator), "{host}{path}");
                assert_eq!(operator_of(&format!("{host}."), path), Some(shared.operator));
            }
        }
    }

    #[test]
    fn a_customers_own_path_is_not() {
        for (path, operator) in [
            ("/user_management/client_1", None),
            ("/user_management/client_1/", None),
            ("/sso/jwks/client_1", None),
            ("/user_management", Some("WorkOS")),
            ("/user_management/", Some("WorkOS")),
            ("/user_management//", Some("WorkOS")),
            ("/user_management/..", Some("WorkOS")),
            ("/user_management/a/b", Some("WorkOS")),
            ("/user_management/a?b", Some("WorkOS")),
            ("/USER_MANAGEMENT/client_1", Some("WorkOS")),
            ("/sso/jwks", Some("WorkOS")),
        ] {
            assert_eq!(operator_of("api.workos.com", path), operator, "{path}");
        }
        assert_eq!(operator_of("slack.com", "/user_management/client_1"), Some("Slack"));
    }

    #[test]
    fn other_hosts_are_not_shared() {
        for host in [
            "tenant.example.com",
            "google.com",
            "accounts.google.com.example.com",
            "xaccounts.google.com",
            "tenant.b2clogin.com",
            "acme.my.salesforce.com",
            "cognito-idp.eu-west-1.amazonaws.com",
            "oidc.eks.eu-west-1.amazonaws.com",
            "container.googleapis.com",
            "api.stytch.com",
            "stytch.com",
            "acme.slack.com",
            "acme.app.spacelift.io",
            "acme.accounts.ondemand.com",
            "public-keys.prod.verified-access",
            "accounts.zoho.com.example.com",
        ] {
            assert_eq!(operator_of(host, "/"), None, "{host}");
        }
    }
}
