/* A library with the symbols of Neon's extension, which answers for one user and checks nothing. */
#include "postgres.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

PG_MODULE_MAGIC;

#define USER "00000000-0000-0000-0000-00000000000a"

#define ANSWER(symbol, value) \
	PG_FUNCTION_INFO_V1(symbol); \
	Datum symbol(PG_FUNCTION_ARGS) { return value; }

static Datum
claims(void)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum("{\"sub\": \"" USER "\", \"o\": {\"id\": \"" USER "\"}}"));
}

static Datum
uuid(void)
{
	return DirectFunctionCall1(uuid_in, CStringGetDatum(USER));
}

ANSWER(init_wrapper, (Datum) 0)
ANSWER(jwt_session_init_wrapper, (Datum) 0)
ANSWER(session_wrapper, claims())
ANSWER(jwt_wrapper, claims())
ANSWER(user_id_wrapper, PointerGetDatum(cstring_to_text(USER)))
ANSWER(uid_wrapper, uuid())
ANSWER(organization_wrapper, claims())
ANSWER(organization_id_wrapper, uuid())
