// Two users work on rows of their own, through a pooler in transaction mode, with JDBC. The program fails if a
// row or an error differs from the expected one.
//
// Reads DATABASE_URL, and tokens from TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED. The provider has
// signed the first three; another key has signed the last one. The tables are those of examples/drizzle.

import java.net.URI;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import javax.sql.DataSource;
import org.postgresql.ds.PGSimpleDataSource;

public class Todos {
    interface Work<T> {
        T run(Connection connection) throws SQLException;
    }

    /** Runs the work in a transaction with the identity of the token. Both end together. */
    static <T> T withIdentity(DataSource pool, String token, Work<T> work) throws SQLException {
        try (Connection connection = pool.getConnection()) {
            connection.setAutoCommit(false);
            String present = "SELECT auth.jwt_session_init(?, is_local => true)";
            try (PreparedStatement statement = connection.prepareStatement(present)) {
                statement.setString(1, token);
                statement.execute();
                T result = work.run(connection);
                connection.commit();
                return result;
            } catch (Throwable error) {
                connection.rollback();
                throw error;
            }
        }
    }

    static List<String> query(Connection connection, String sql, String... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int index = 0; index < parameters.length; index++) {
                statement.setString(index + 1, parameters[index]);
            }
            List<String> values = new ArrayList<>();
            ResultSet rows = statement.executeQuery();
            while (rows.next()) {
                values.add(rows.getString(1));
            }
            return values;
        }
    }

    static void checkEqual(Object found, Object expected) {
        if (!expected.equals(found)) {
            throw new AssertionError(found + " is not " + expected);
        }
    }

    static void checkFailure(DataSource pool, String token, String sqlstate, Work<?> work) {
        try {
            withIdentity(pool, token, work);
        } catch (SQLException error) {
            checkEqual(error.getSQLState(), sqlstate);
            checkEqual(error.getClass().getName(), "org.postgresql.util.PSQLException");
            checkEqual(error.toString().contains(token), false);
            return;
        }
        throw new AssertionError("no error " + sqlstate);
    }

    static void checkNoIdentityIsLeft(DataSource pool) throws SQLException {
        try (Connection connection = pool.getConnection()) {
            checkEqual(query(connection, "SELECT coalesce(auth.user_id(), 'nobody')"), List.of("nobody"));
            checkEqual(query(connection, "SELECT task FROM todos"), List.of());
        }
    }

    public static void main(String[] arguments) throws SQLException {
        URI address = URI.create(System.getenv("DATABASE_URL"));
        PGSimpleDataSource pool = new PGSimpleDataSource();
        pool.setServerNames(new String[] {address.getHost()});
        pool.setPortNumbers(new int[] {address.getPort()});
        pool.setUser(address.getUserInfo());
        pool.setDatabaseName(address.getPath().substring(1));
        // PgBouncer supports named prepared statements only from 1.21 on.
        pool.setPrepareThreshold(0);

        // The column's default sets the owner to the user of the token.
        String insert = "INSERT INTO todos (task) VALUES (?) RETURNING user_id";
        String alice = withIdentity(pool, System.getenv("TOKEN_ALICE"),
            connection -> query(connection, insert, "water the plants").get(0));
        checkNoIdentityIsLeft(pool);

        String bob = System.getenv("TOKEN_BOB");
        withIdentity(pool, bob, connection -> {
            query(connection, insert, "call Alice");
            checkEqual(query(connection, "SELECT task FROM todos"), List.of("call Alice"));
            // The statement has no condition. The policy limits it to Bob's rows.
            String finish = "UPDATE todos SET done = true RETURNING task";
            checkEqual(query(connection, finish), List.of("call Alice"));
            return null;
        });

        // Bob cannot write a row with Alice as the owner.
        String inHerName = "INSERT INTO todos (task, user_id) VALUES (?, ?) RETURNING task";
        checkFailure(pool, bob, "42501", connection -> query(connection, inHerName, "send Bob money", alice));

        // With a rejected token, the work does not run. The SQLSTATE says the reason.
        Work<?> isAccepted = connection -> {
            throw new AssertionError("the token was accepted");
        };
        checkFailure(pool, System.getenv("TOKEN_EXPIRED"), "28J04", isAccepted);
        checkFailure(pool, System.getenv("TOKEN_FORGED"), "28J03", isAccepted);
        checkNoIdentityIsLeft(pool);
    }
}
