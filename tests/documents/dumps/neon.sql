-- A database of Neon with Neon Auth's table of users and policies of drizzle-orm/neon, as pg_dump --no-owner writes it.
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET row_security = off;

CREATE SCHEMA neon_auth;
CREATE EXTENSION IF NOT EXISTS pg_session_jwt WITH SCHEMA public;
COMMENT ON EXTENSION pg_session_jwt IS 'pg_session_jwt: manage authentication sessions using JWTs';

CREATE TABLE neon_auth.users_sync (
    raw_json jsonb NOT NULL,
    id text GENERATED ALWAYS AS ((raw_json ->> 'id'::text)) STORED NOT NULL,
    name text GENERATED ALWAYS AS ((raw_json ->> 'display_name'::text)) STORED,
    email text GENERATED ALWAYS AS ((raw_json ->> 'primary_email'::text)) STORED,
    created_at timestamp with time zone GENERATED ALWAYS AS (to_timestamp((trunc((((raw_json ->> 'signed_up_at_millis'::text))::bigint)::double precision) / (1000)::double precision))) STORED,
    updated_at timestamp with time zone,
    deleted_at timestamp with time zone
);
CREATE TABLE public.todos (
    id bigint NOT NULL,
    user_id text DEFAULT auth.user_id() NOT NULL,
    task text NOT NULL
);
ALTER TABLE public.todos ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.todos_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
COPY neon_auth.users_sync (raw_json, updated_at, deleted_at) FROM stdin;
{"id": "5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f", "display_name": "Alice", "primary_email": "alice@example.com", "signed_up_at_millis": 1735689600000}	2025-01-01 00:00:00+00	\N
\.
COPY public.todos (id, user_id, task) FROM stdin;
1	5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f	water the plants
\.
SELECT pg_catalog.setval('public.todos_id_seq', 1, true);
ALTER TABLE ONLY neon_auth.users_sync ADD CONSTRAINT users_sync_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.todos ADD CONSTRAINT todos_pkey PRIMARY KEY (id);
CREATE INDEX users_sync_deleted_at_idx ON neon_auth.users_sync USING btree (deleted_at);
ALTER TABLE ONLY public.todos
    ADD CONSTRAINT todos_user_id_fk FOREIGN KEY (user_id) REFERENCES neon_auth.users_sync(id) ON DELETE CASCADE;
ALTER TABLE public.todos ENABLE ROW LEVEL SECURITY;
CREATE POLICY "crud-authenticated-policy-select" ON public.todos FOR SELECT TO authenticated USING (( SELECT (auth.user_id() = todos.user_id)));
CREATE POLICY "crud-authenticated-policy-insert" ON public.todos FOR INSERT TO authenticated WITH CHECK (( SELECT (auth.user_id() = todos.user_id)));
GRANT USAGE ON SCHEMA public TO authenticated;
GRANT USAGE ON SCHEMA public TO anonymous;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.todos TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.todos TO anonymous;
ALTER DEFAULT PRIVILEGES FOR ROLE cloud_admin IN SCHEMA public GRANT ALL ON SEQUENCES TO neon_superuser WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE cloud_admin IN SCHEMA public GRANT ALL ON TABLES TO neon_superuser WITH GRANT OPTION;
