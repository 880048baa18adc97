"""The local page of `avsr serve`: live captions of a browser's camera and microphone.

    protocol.py     the messages between page and server
    limits.py       how many messages, how large and how fast
    access.py       who may connect: host names, origins, the token
    pictures.py     decodes JPEG; size and cost are checked first
    stream.py       one session, with its threads and bounded queues
    connection.py   one WebSocket, from its hello to its close
    transport.py    limits below HTTP and WebSockets: connections that stall or flood
    app.py          the web application
    server.py       the process: socket, model, uvicorn

Nothing here is imported before `avsr serve` runs. Only `app.py`, `connection.py`, `transport.py` and `server.py` import
FastAPI and uvicorn, which are the optional extra `serve`.
"""
