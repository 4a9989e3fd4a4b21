"""The mail server of the tests: prints the port it listens on, then each message that it takes as a line of JSON.

Arguments: a certificate and its key. It offers STARTTLS, and takes mail only from who is logged in over it.
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Keep:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "tls": session.ssl is not None,
            "text": envelope.content.decode("utf-8", "replace"),
        }
        print(json.dumps(mail), flush=True)
        return "250 taken"


def login(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.password == b"pass phrase"
    return AuthResult(success=good, auth_data=data)


async def serve(context):
    def connection():
        return SMTP(Keep(), hostname="localhost", tls_context=context, authenticator=login, auth_required=True)

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the test ends


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
asyncio.run(serve(context))
